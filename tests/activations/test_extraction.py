"""Features of every stage in one pass, and how long each stage takes to reach."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.activations import extraction
from transferscope.activations.capture import collect, resolve_stages
from transferscope.activations.extraction import extract
from transferscope.errors import CaptureError, InputError
from transferscope.networks import CompactResNet

CPU = torch.device("cpu")


class Wait(nn.Module):
    """Do nothing for so long."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x * 2


def images(n=7, seed=0):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def compact():
    torch.manual_seed(0)
    net = CompactResNet(4, width=4)
    return net, resolve_stages(net, "auto", images(1), cuts_only=True)


def run(net, stages, pictures, **options):
    return extract(net, stages, pictures, **{"device": CPU, "batch_size": 3, **options})


def test_features_are_those_of_collect():
    net, stages = compact()
    net.train()
    pictures = images()
    extracted = run(net, stages, pictures)
    expected = collect(net, pictures.split(3), [stage.layer for stage in stages])
    assert list(extracted.features) == list(expected) == [stage.layer for stage in stages]
    for layer, array in expected.items():
        np.testing.assert_array_equal(extracted.features[layer], array)
        assert extracted.features[layer].dtype == np.float32
    assert extracted.stages == stages
    assert net.training
    assert net.blocks.training
    assert not net._forward_hooks


def test_batches_may_come_one_by_one():
    net, stages = compact()
    pictures = images()
    expected = run(net, stages, pictures)
    reports = []
    extracted = run(net, stages, iter(pictures.split(3)), batch_size=99, report=lambda *done: reports.append(done))
    for layer, array in expected.features.items():
        np.testing.assert_array_equal(extracted.features[layer], array)
    assert not reports


def test_progress_is_told_in_images():
    net, stages = compact()
    reports = []
    run(net, stages, images(), report=lambda *done: reports.append(done))
    assert reports == [(3, 7), (6, 7), (7, 7)]


def test_stages_come_in_firing_order_and_second_calls_by_their_number():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.last = nn.Conv2d(3, 5, 3)
            self.first = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.last(self.act(self.first(self.act(x))))

    torch.manual_seed(0)
    net = Twice()
    stages = resolve_stages(net, ["act", "first"], images(1))
    assert [stage.layer for stage in stages] == ["act", "first", "act:2"]
    extracted = run(net, stages[::-1], images())
    assert extracted.stages == stages
    assert list(extracted.seconds) == list(extracted.features) == ["act", "first", "act:2"]
    with torch.no_grad():
        expected = net.first(images().relu()).relu().mean((2, 3))
    np.testing.assert_allclose(extracted.features["act:2"], expected, rtol=1e-5)
    only = run(net, stages[2:], images())
    np.testing.assert_array_equal(only.features["act:2"], extracted.features["act:2"])


def test_a_stage_is_charged_for_what_comes_before_it_and_for_nothing_after():
    net = nn.Sequential(Wait(0.01), Wait(0.02), Wait(0.2))
    stages = resolve_stages(net, ["0", "1"], images(1))
    extracted = run(net, stages, images(6))
    # Two batches of three images.
    assert extracted.seconds["0"] >= 0.01 / 3
    assert 0.03 / 3 <= extracted.seconds["1"] < 0.2 / 3


def test_setting_up_is_not_charged_for():
    class Lazy(nn.Module):
        calls = 0

        def forward(self, x):
            Lazy.calls += 1
            if Lazy.calls == 1:
                time.sleep(0.2)
            return x * 2

    net = nn.Sequential(nn.Identity(), Lazy())
    stages = resolve_stages(nn.Sequential(nn.Identity(), Wait(0)), ["1"], images(1))
    extracted = run(net, stages, images(6))
    assert extracted.seconds["1"] < 0.1 / 6
    assert Lazy.calls == 3
    assert len(extracted.features["1"]) == 6


def test_preparing_the_images_is_not_charged_for():
    net = nn.Sequential(nn.Identity(), Wait(0))
    stages = resolve_stages(net, ["1"], images(1))

    def slowly():
        for batch in images(6).split(3):
            time.sleep(0.1)
            yield batch

    assert run(net, stages, slowly()).seconds["1"] < 0.1 / 6


def test_times_are_worked_out_from_the_clock(monkeypatch):
    """A clock that moves by known steps: each stage costs its way there and its own mean, not earlier means."""
    net = nn.Sequential(nn.Identity(), nn.Identity())
    stages = resolve_stages(nn.Sequential(Wait(0), Wait(0)), ["0", "1"], images(1))
    # Start, reached, pooled, reached, pooled: a warm-up without a start, then two batches of four and two images.
    steps = [9, 9, 9, 9, 0, 1, 10, 100, 1000, 0, 2, 20, 200, 2000]
    ticks = itertools.accumulate(steps)
    monkeypatch.setattr(extraction, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    extracted = run(net, stages, images(6), batch_size=4)
    assert extracted.seconds == {"0": pytest.approx((11 + 22) / 6), "1": pytest.approx((1101 + 2202) / 6)}


def test_operations_come_with_the_stages():
    net, stages = compact()
    flops = [stage.flops for stage in run(net, stages, images(2)).stages]
    assert flops == sorted(flops)
    # The stem's 3 × 3 convolution from 3 to 4 channels at 16 × 16, a multiply-add counted as two.
    assert flops[0] == 2 * 3 * 4 * 9 * 16 * 16


def test_activations_that_are_not_finite_are_an_error_naming_the_layer():
    net, stages = compact()
    with torch.no_grad():
        net.blocks[2].conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CaptureError, match=r"activations of layer 'blocks\.2' are NaN or infinite"):
        run(net, stages, images())
    assert not net.blocks[2]._forward_hooks


def test_a_stage_that_does_not_fire_is_an_error():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Identity(), nn.Identity()

        def forward(self, x):
            return self.used(x) * 2

    net = Skips()
    used = resolve_stages(net, ["used"], images(1))
    never = type(used[0])("unused", (3, 16, 16), 0, 0)
    with pytest.raises(CaptureError, match="'unused' exists but never fired"):
        run(net, (*used, never), images())


def test_no_images_are_an_error():
    net, stages = compact()
    with pytest.raises(InputError, match=r"at least one image, but got the shape \(0, 3, 16, 16\)"):
        run(net, stages, images(0))
    with pytest.raises(CaptureError):
        run(net, stages, [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_features_are_those_of_the_cpu_and_times_grow_with_depth():
    net, stages = compact()
    expected = run(net, stages, images()).features
    extracted = run(net.cuda(), stages, images(), device=torch.device("cuda"))
    for layer, array in expected.items():
        np.testing.assert_allclose(extracted.features[layer], array, rtol=1e-2, atol=1e-3)
    times = list(extracted.seconds.values())
    assert 0 < times[0] < times[-1]
