"""Where a source's training began: weights from a file, weights drawn again, and factories that draw none."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from transferscope.errors import InputError, SourceError
from transferscope.networks.checkpoint_files import read_checkpoint
from transferscope.networks.zoo import load_zoo
from transferscope.verbs.parameters.initial import initial_weights

FACTORY = """\
import torch
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 5, 3), nn.Linear(5, 2))

def alike():
    torch.manual_seed(3)
    return build()

def backbone():
    head = nn.Linear(5, 2)
    return nn.Sequential(*alike()[:3], head)

def zeros():
    net = build()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net

def one_fixed_and_one_zero():
    net = nn.Sequential(*build(), nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.dirac_(net[0].weight)
    nn.init.zeros_(net[5].weight)
    return net

def without_weights():
    return nn.BatchNorm2d(3)
"""


def entry(**keys):
    return load_zoo([{"name": "a", "loader": "timm", "model": "test_resnet", **keys}])["a"]


@pytest.fixture
def ours(tmp_path):
    """Make a source of a factory, with a checkpoint beside it."""
    (tmp_path / "ours.py").write_text(FACTORY)
    torch.save(net().state_dict(), tmp_path / "trained.pt")

    def ours(function="build", **keys):
        path = tmp_path / "zoo.yaml"
        source = {"name": "a", "loader": "python", "factory": f"ours.py:{function}", "checkpoint": "trained.pt"}
        lines = [f"  {key}: {value}" for key, value in (source | {"transform": "{size: 8}"} | keys).items() if value]
        path.write_text("version: 1\nsources:\n-" + "\n".join(lines)[1:] + "\n")
        return load_zoo(path)["a"]

    return ours


def net(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 5, 3), nn.Linear(5, 2))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


class TestGiven:
    def test_the_file_is_the_one_draw(self, ours, tmp_path):
        first = net().double()
        (tmp_path / "weights").mkdir()
        torch.save({"state_dict": {f"module.{key}": value for key, value in first.state_dict().items()}},
                   tmp_path / "weights/net.initial.pt")  # fmt: skip
        found = initial_weights(ours(initial="weights/net.initial.pt"), redraws=3, trust_code=True)
        assert (found.description, len(found.draws)) == ("given: net.initial.pt", 1)
        expected = {key: value for key, value in first.float().state_dict().items() if value.is_floating_point()}
        assert same(found.draws[0], expected)
        assert {(tensor.dtype, tensor.device.type) for tensor in found.draws[0].values()} == {(torch.float32, "cpu")}
        assert not any(tensor.requires_grad for tensor in found.draws[0].values())

    def test_the_source_may_be_a_factory_that_loads_its_own_weights(self, ours, tmp_path):
        torch.save(net().state_dict(), tmp_path / "first.pt")
        found = initial_weights(ours("alike", initial="first.pt", checkpoint=None), trust_code=True)
        assert torch.equal(found.draws[0]["0.weight"], read_checkpoint(tmp_path / "first.pt")["0.weight"])

    def test_its_classifier_is_as_wide_as_the_kwargs_of_the_source_say(self, tmp_path):
        saved = timm.create_model("test_resnet", num_classes=7)
        save_file(saved.state_dict(), tmp_path / "first.safetensors")
        path = str(tmp_path / "first.safetensors")
        found = initial_weights(entry(kwargs={"num_classes": 7}, initial=path))
        assert torch.equal(found.draws[0]["fc.weight"], saved.fc.weight)
        with pytest.raises(SourceError, match=r"'a': initial \(of the same model and kwargs .*fc\.weight: network"):
            initial_weights(entry(initial=path))

    def test_a_file_that_does_not_fit_is_blamed_on_the_source(self, ours, tmp_path):
        torch.save(net(6).state_dict(), tmp_path / "wide.pt")
        torch.save({"other": torch.ones(2)}, tmp_path / "other.pt")
        (tmp_path / "damaged.pt").write_bytes(b"nothing")
        for name, says in (
            ("wide.pt", r"does not fit .*0\.weight: network \(4, 3, 3, 3\) float32, file \(6, 3, 3, 3\) float32"),
            ("other.pt", r"are missing from the file .* 1 are not in the network \(other"),
            ("damaged.pt", "is damaged or no checkpoint"),
            ("wied.pt", r"there is no file .*did you mean 'wide\.pt'"),
        ):
            with pytest.raises(SourceError, match=f"source 'a': initial .*: checkpoint.*{says}"):
                initial_weights(ours(initial=name), trust_code=True)

    def test_weights_that_are_not_finite(self, ours, tmp_path):
        torch.save({key: value * float("nan") if key == "2.weight" else value
                    for key, value in net().state_dict().items()}, tmp_path / "first.pt")  # fmt: skip
        with pytest.raises(SourceError, match=r"source 'a': .*'2\.weight' of `initial` holds NaN"):
            initial_weights(ours(initial="first.pt"), trust_code=True)


class TestRedrawn:
    def test_each_seed_draws_what_the_architecture_draws(self):
        found = initial_weights(entry(kwargs={"num_classes": 3}), redraws=3, seed=5)
        assert found.description == "redrawn by the architecture's own initialiser, seeds 5 to 7"
        for seed, draw in zip((5, 6, 7), found.draws, strict=True):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                state = timm.create_model("test_resnet", num_classes=3).state_dict()
            assert same(draw, {key: value for key, value in state.items() if value.is_floating_point()})

    def test_by_default_there_are_five(self):
        found = initial_weights(entry())
        assert len(found.draws) == 5
        assert found.description == "redrawn by the architecture's own initialiser, seeds 0 to 4"

    def test_the_checkpoint_of_the_source_plays_no_part(self, ours):
        found = initial_weights(ours(), redraws=1, seed=2, trust_code=True)
        assert found.description == "redrawn by the architecture's own initialiser, seed 2"
        with torch.random.fork_rng():
            torch.manual_seed(2)
            expected = net().state_dict()
        assert [torch.equal(value, expected[key]) for key, value in found.draws[0].items()] == [True] * 10

    def test_the_same_seed_gives_the_same_and_leaves_the_random_state(self, ours):
        before = torch.get_rng_state()
        first, again = (initial_weights(ours(), redraws=2, seed=1, trust_code=True).draws for _ in range(2))
        assert all(same(*pair) for pair in zip(first, again, strict=True))
        assert not torch.equal(first[0]["0.weight"], first[1]["0.weight"])
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("redraws", [1, 3])
    @pytest.mark.parametrize(
        ("function", "says"),
        [
            ("alike", "3 of 3 convolution and linear weights are the same"),
            ("backbone", "2 of 3 convolution and linear weights are the same"),
            ("zeros", "all weights are the same"),
        ],
    )
    def test_a_factory_that_draws_nothing_anew(self, ours, function, says, redraws):
        with pytest.raises(SourceError, match=rf"'a': its factory .*ours\.py:{function} .*{says}.* as `initial`"):
            initial_weights(ours(function), redraws=redraws, trust_code=True)

    def test_a_few_weights_may_be_fixed_by_the_initialiser(self, ours):
        assert len(initial_weights(ours("one_fixed_and_one_zero"), redraws=2, trust_code=True).draws) == 2

    def test_a_factory_without_a_checkpoint_is_the_source_itself(self, ours):
        with pytest.raises(SourceError, match=r"'a': without a checkpoint, .* as `initial`, or .* as `checkpoint`"):
            initial_weights(ours(checkpoint=None), trust_code=True)

    def test_a_factory_without_convolutions(self, ours):
        with pytest.raises(SourceError, match=r"source 'a': .*ours\.py:without_weights` to hold convolution or linear"):
            initial_weights(ours("without_weights"), trust_code=True)


@pytest.mark.parametrize("redraws", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("keys", [{}, {"initial": "first.pt"}])
def test_redraws_must_be_a_whole_number(redraws, keys):
    with pytest.raises(InputError, match="Expected `redraws` to be a whole number of at least 1, but got"):
        initial_weights(entry(**keys), redraws=redraws)


def test_a_factory_is_not_run_without_trust(ours, tmp_path):
    (tmp_path / "ours.py").write_text("raise SystemExit")
    for keys in ({}, {"initial": "trained.pt"}):
        with pytest.raises(InputError, match=r"source 'a' runs the code of .*--trust-code"):
            initial_weights(ours(**keys))


def test_a_model_that_does_not_exist():
    with pytest.raises(SourceError, match="source 'a': timm has no model 'test_resnett'"):
        initial_weights(entry(model="test_resnett"))
