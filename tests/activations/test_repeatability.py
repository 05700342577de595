"""Networks that are no function of one image are named, with the layer; those that draw numbers are seeded."""

import random

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
        self.generator, self.calls = torch.Generator(), 0

    def forward(self, x):
        x = self.noisy(self.norm(self.c2(torch.relu(self.c1(x)))))
        if self.how == "batch mean":
            x = x - x.mean(dim=0)
        if self.how == "coin of Python" and random.random() < 0.5:
            x = 2 * x
        if self.how == "coin of NumPy" and np.random.rand() < 0.5:  # noqa: NPY002
            x = 2 * x
        if self.how == "coin" and torch.rand(()) < 0.5:
            x = torch.cat([x, x], dim=2)
        if self.how == "own generator":
            x = x + torch.randn(x.shape, generator=self.generator)
        if self.how == "unused numbers":
            torch.rand(3)
        if self.how == "nan":
            x = x / 0 * 0
        x = self.neck(torch.relu(self.c3(x)).mean(dim=(2, 3)))
        if self.how == "counter":
            self.calls += 1
            x = x * self.calls
        if self.how == "attention between images":
            x = torch.softmax(x @ x.T, dim=1) @ x
        return self.head(x)


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
        ("", None, None),
        ("dropout", "noisy", None),
        ("batch statistics", None, "norm"),
        ("batch mean", None, "c3"),
        ("neck", None, "neck"),  # which takes no lone image
    ],
)
def test_the_first_layer_is_named(how, random, in_batch):
    found = looked_at(drawn(how))
    assert (found.random, found.in_batch) == (random, in_batch)
    assert (str(found) == "") == (how == "")


@pytest.mark.parametrize("how", ["coin", "coin of Python", "coin of NumPy"])
def test_a_draw_that_may_fall_the_same_way_is_found_for_what_it_is(how):
    assert looked_at(drawn(how)).random == "c3"


@pytest.mark.parametrize(("how", "layer"), [("own generator", "c3"), ("counter", "head")])
def test_numbers_that_no_seed_decides_are_named(how, layer):
    found = looked_at(drawn(how))
    assert (found.changing, found.random, found.in_batch) == (layer, None, None)
    assert f"first seen in layer {layer!r}, and no seed controls them" in str(found)


def test_what_a_network_puts_out_is_looked_at_too():
    assert looked_at(drawn("attention between images")).in_batch == "head"


def test_numbers_that_are_drawn_and_not_used_are_no_matter():
    assert str(looked_at(drawn("unused numbers"))) == ""


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
    draw = lambda: (torch.rand(3).tolist(), random.random(), np.random.rand())  # noqa: E731, NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    expected = draw()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
    looked_at(net)
    assert draw() == expected


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
    with pytest.warns(TransferscopeWarning, match="depends on the other images of the batch.*'norm'"):
        features("batch statistics", target, tmp_path)
    images = torch.randn(12, 3, 16, 16)
    with pytest.warns(TransferscopeWarning, match="Net: Its output for an image depends"):
        ts.compare(drawn("batch statistics"), drawn(), images, layers_x=["c3"], layers_y=["c3"], device="cpu")
