"""Networks that are no function of one image are named, with the layer; those that draw numbers are seeded."""

import numpy as np
import pytest
import torch
from image_folders import coloured_noise
from torch import nn
from torch.nn import functional

import transferscope as ts
from transferscope.activations.features import layer_features
from transferscope.activations.repeatability import repeatability
from transferscope.activations.tracing import trace
from transferscope.data.images import Transform
from transferscope.data.target import load_target
from transferscope.errors import CaptureError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet
from transferscope.runtime.store import Store

CPU = torch.device("cpu")


class Net(nn.Module):
    """Three stages; `how` says what happens after the second one."""

    def __init__(self, how=""):
        super().__init__()
        self.how = how
        self.c1, self.c2, self.c3 = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 12, 3, 2, 1), nn.Conv2d(12, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(12, track_running_stats=how != "batch statistics")
        self.noisy = Dropout(how == "dropout")
        self.neck = nn.BatchNorm1d(16, track_running_stats=False) if how == "neck" else nn.Identity()
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.noisy(self.norm(self.c2(torch.relu(self.c1(x)))))
        if self.how == "batch mean":
            x = x - x.mean(dim=0)
        if self.how == "nan":
            x = x / 0 * 0
        return self.head(self.neck(torch.relu(self.c3(x)).mean(dim=(2, 3))))


class Dropout(nn.Module):
    def __init__(self, on):
        super().__init__()
        self.on = on

    def forward(self, x):
        return functional.dropout(x, 0.3) if self.on else x


def drawn(how=""):
    torch.manual_seed(0)
    return Net(how).eval()


def looked_at(net, n=4):
    images = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return repeatability(net, images, ["c2", "c3", "neck"], trace(net, images))


@pytest.mark.parametrize(
    ("how", "random", "in_batch"),
    [
        ("", "", ""),
        ("dropout", "noisy", ""),
        ("batch statistics", "", "norm"),
        ("batch mean", "", "c3"),
        ("neck", "", "neck"),  # which takes no lone image
    ],
)
def test_the_first_layer_is_named(how, random, in_batch):
    found = looked_at(drawn(how))
    assert (found.random, found.in_batch) == (random, in_batch)
    assert (str(found) == "") == (how == "")


def test_a_network_that_is_sound_is_run_on_eight_images():
    net = CompactResNet(3).eval()
    sizes = []
    images = torch.randn(4, 3, 32, 32)
    traced = trace(net, images)
    net.register_forward_hook(lambda _net, args, _output: sizes.append(len(args[0])))
    assert str(repeatability(net, images, ["stem", "blocks.5"], traced)) == ""
    assert sizes == [4, 2, 2]  # of the thousand that a probe has: 0.8 %


def test_a_lone_image_tells_nothing():
    assert str(looked_at(drawn("batch mean"), 1)) == ""


def test_nan_names_the_layer_where_it_begins():
    with pytest.raises(CaptureError, match="'c3' is NaN or infinite"):
        looked_at(drawn("nan"))


def test_random_numbers_are_left_as_they_were():
    net = drawn("dropout")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    looked_at(net)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture
def target(tmp_path):
    coloured_noise(tmp_path / "data", per_class=8)
    return load_target(tmp_path / "data")


def features(how, target, folder, batch_size=4):
    build = lambda: (drawn(how), Transform(16, (0.5,) * 3, (0.5,) * 3))  # noqa: E731
    found = layer_features(build, how, ["c3"], target, store=Store(folder), device=CPU, batch_size=batch_size)
    return np.asarray(found.arrays["c3"])


def test_dropout_that_is_always_on_gives_the_same_features_whatever_was_cached(target, tmp_path):
    with pytest.warns(TransferscopeWarning, match="draws random numbers in evaluation mode.*'noisy'"):
        whole = features("dropout", target, tmp_path / "one")
    with pytest.warns(TransferscopeWarning, match="draws random numbers"):
        few = features("dropout", target.subset(np.arange(5, 11)), tmp_path / "two", batch_size=3)
    with pytest.warns(TransferscopeWarning, match="draws random numbers"):  # some from the cache, it is said again
        again = features("dropout", target, tmp_path / "two", batch_size=7)
    np.testing.assert_allclose(few, whole[5:11], rtol=1e-5)
    np.testing.assert_allclose(again, whole, rtol=1e-5)
    assert np.abs(whole - features("", target, tmp_path / "one")).max() > 0.01


def test_batch_statistics_are_said_in_features_and_in_compare(target, tmp_path):
    with pytest.warns(TransferscopeWarning, match="depends on the other images of its batch.*'norm'"):
        features("batch statistics", target, tmp_path)
    images = torch.randn(12, 3, 16, 16)
    with pytest.warns(TransferscopeWarning, match="Net: What it gives for an image depends"):
        ts.compare(drawn("batch statistics"), drawn(), images, layers_x=["c3"], layers_y=["c3"], device="cpu")
