"""What images a network takes: channels by its own first layer, sizes of two sides, and what is refused."""

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from transferscope.data.images import Transform
from transferscope.errors import InputError, SourceError
from transferscope.networks.inputs import input_channels
from transferscope.networks.loading import build_untrained, load_network, source_transform
from transferscope.networks.zoo import load_zoo

pytestmark = pytest.mark.bounds

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def entry(**keys):
    return load_zoo([{"name": "a", **keys}])["a"]


def timm_entry(tmp_path, **keys):
    """An entry of test_resnet or another with random weights in a file."""
    model, kwargs = keys.pop("model", "test_resnet"), {"num_classes": 5, **keys.pop("kwargs", {})}
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(timm.create_model(model, **kwargs).state_dict(), path)
    return entry(loader="timm", model=model, kwargs=kwargs, checkpoint=str(path), **keys)


class Repeats(nn.Module):
    """Takes grey images and shows them to a network for colours."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        """Map (n, 1, h, w) to (n, 4, h - 2, w - 2)."""
        return self.conv(x.repeat(1, 3, 1, 1))


class Averages(nn.Module):
    """Takes colour images and makes them grey itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x):
        """Map (n, 3, h, w) to (n, 4, h - 2, w - 2)."""
        red, green, blue = x.unbind(1)
        return self.conv((red + green + blue)[:, None] / 3)


class Patches(nn.Module):
    """Has no convolution to ask."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 5)

    def forward(self, x):
        """Map (n, 3, 8, 8) to (n, 5)."""
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3)), 3),
        (nn.Sequential(nn.Conv2d(1, 4, 3)), 1),
        (nn.Sequential(nn.Conv2d(13, 4, 3)), 13),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), 2),
        (Repeats(), 1),
        (Averages(), 3),
        (Patches(), 3),
        (nn.Identity(), 3),
    ],
)
def test_the_first_layer_that_an_image_reaches_tells_its_channels(module, channels):
    hooks = [len(layer._forward_pre_hooks) for layer in module.modules()]
    state = torch.random.get_rng_state()
    assert input_channels(module.eval(), 8) == channels
    assert input_channels(module.eval(), (8, 8)) == channels
    assert [len(layer._forward_pre_hooks) for layer in module.modules()] == hooks
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("channels", "given", "mean", "std"),
    [
        (1, {}, (0.5,), (0.5,)),  # the average of what timm says: 0.5 for each colour
        (1, {"mean": [0.2], "std": [0.3]}, (0.2,), (0.3,)),
        (4, {"mean": [0.2], "std": [0.1, 0.2, 0.3, 0.4]}, (0.2,) * 4, (0.1, 0.2, 0.3, 0.4)),
        (3, {"mean": [0.2]}, (0.2,) * 3, (0.5,) * 3),
    ],
)
def test_timm_networks_of_other_channels(tmp_path, channels, given, mean, std):
    network = load_network(timm_entry(tmp_path, kwargs={"in_chans": channels}, transform={"size": 32, **given}))
    assert network.transform == Transform(32, mean, std, "bilinear")
    assert network.module(network.transform.blank()).shape == (1, 5)


@pytest.mark.parametrize(
    ("channels", "given", "message"),
    [
        (1, {"mean": [0.5, 0.5, 0.5]}, "images of 1 channel, but mean has 3 numbers; give one number as mean under"),
        (4, {}, "images of 4 channels, but mean has 3 numbers; give 4 numbers, or one for all, as mean under"),
        (4, {"mean": [0.5], "std": [0.5, 0.5]}, "images of 4 channels, but std has 2 numbers"),
    ],
)
def test_a_mean_for_other_channels_is_refused(tmp_path, channels, given, message):
    with pytest.raises(SourceError, match=f"source 'a': the network takes {message}"):
        load_network(timm_entry(tmp_path, kwargs={"in_chans": channels}, transform={"size": 32, **given}))


@pytest.mark.parametrize(
    ("convolution", "given", "mean"),
    [
        ("1, 4, 3", {}, (sum(MEAN) / 3,)),
        ("1, 4, 3", {"mean": [0.5], "std": [0.5]}, (0.5,)),
        ("5, 4, 3", {"mean": [0.5] * 5, "std": [0.5]}, (0.5,) * 5),
        ("3, 4, 3", {"mean": [0.5]}, (0.5,) * 3),
        ("3, 4, 3", {}, MEAN),
    ],
)
def test_factories_are_asked_by_their_network(tmp_path, convolution, given, mean):
    (tmp_path / "ours.py").write_text(f"from torch import nn\ndef build():\n    return nn.Conv2d({convolution})\n")
    source = entry(loader="python", factory=f"{tmp_path / 'ours.py'}:build", transform={"size": [8, 12], **given})
    transform = load_network(source, trust_code=True).transform
    assert transform.mean == pytest.approx(mean)
    assert transform.shape == (len(mean), 8, 12)
    assert source_transform(source, build_untrained(source, seed=0, trust_code=True)) == transform


def test_sizes_of_two_sides_are_those_of_the_entry_or_of_the_library(tmp_path):
    plates = load_network(timm_entry(tmp_path, transform={"size": [32, 128]}))
    assert (plates.transform.size, plates.transform.resize) == ((32, 128), None)
    assert plates.module(plates.transform.blank()).shape == (1, 5)
    boxed = load_network(timm_entry(tmp_path, transform={"size": [32, 128], "resize": [40, 160]}))
    assert boxed.transform.resize == (40, 160)
    strip = load_network(timm_entry(tmp_path, model="test_vit", kwargs={"img_size": [32, 64]}))
    # crop_pct 0.95: floor(32 / 0.95) = 33, floor(64 / 0.95) = 67
    assert (strip.transform.size, strip.transform.resize) == ((32, 64), (33, 67))
    assert strip.module(strip.transform.blank()).shape == (1, 5)


def test_the_size_that_timm_registers_may_have_two_sides(monkeypatch):
    config = timm.data.resolve_model_data_config
    monkeypatch.setattr(
        timm.data, "resolve_model_data_config", lambda module: {**config(module), "input_size": (3, 96, 64)}
    )
    assert source_transform(entry(loader="timm", model="test_resnet")).size == (96, 64)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"size": [32, 64], "resize": 40}, r"resize: expected at least \[32, 64\].*got 40"),
        ({"size": [32, 64], "resize": [40, 60]}, r"resize: expected at least \[32, 64\]"),
        ({"size": 32, "resize": [40, 31]}, "resize: expected at least 32"),
        (
            {"size": [32]},
            r"size: expected .*, or a list of two .height, width., without quotes; got \[32\]",
        ),
        ({"mean": [0.5] * 4, "std": [0.5] * 3}, "std: expected as many numbers as mean has, 4, or one for all"),
    ],
)
def test_what_contradicts_itself_is_a_problem_of_the_zoo(transform, message):
    with pytest.raises(InputError, match=message):
        entry(loader="timm", model="test_resnet", transform=transform)
    assert entry(loader="timm", model="test_resnet", transform={"size": [32, 64], "resize": 64}).transform.resize == 64
