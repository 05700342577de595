"""How long each stage of a network takes to reach."""

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from transferscope.activations import timing
from transferscope.activations.capture import resolve_stages
from transferscope.activations.timing import pace, stage_seconds
from transferscope.errors import CaptureError
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


def run(net, stages, pictures, batch_size=3, device=CPU):
    return stage_seconds(net, stages, pictures.split(batch_size), device=device)


def test_a_network_is_left_as_it_was():
    net, stages = compact()
    net.train()
    assert list(run(net, stages, images())) == [stage.layer for stage in stages]
    assert net.training
    assert net.blocks.training
    assert not net._forward_hooks


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
    assert list(run(net, stages[::-1], images())) == ["act", "first", "act:2"]
    assert list(run(net, stages[2:], images())) == ["act:2"]


def test_a_stage_is_charged_for_what_comes_before_it_and_for_nothing_after():
    net = nn.Sequential(Wait(0.01), Wait(0.02), Wait(0.2))
    stages = resolve_stages(net, ["0", "1"], images(1))
    seconds = run(net, stages, images(6))
    # Two batches of three images.
    assert seconds["0"] >= 0.01 / 3
    assert 0.03 / 3 <= seconds["1"] < 0.2 / 3


def test_setting_up_is_not_charged_for():
    class Lazy(nn.Module):
        slept = False

        def forward(self, x):
            if len(x) == 3 and not Lazy.slept:
                Lazy.slept = True
                time.sleep(0.2)
            return x * 2

    net = nn.Sequential(nn.Identity(), Lazy())
    stages = resolve_stages(nn.Sequential(nn.Identity(), Wait(0)), ["1"], images(1))
    assert run(net, stages, images(6))["1"] < 0.1 / 6
    assert Lazy.slept


def test_preparing_the_images_is_not_charged_for():
    net = nn.Sequential(nn.Identity(), Wait(0))
    stages = resolve_stages(net, ["1"], images(1))

    def slowly():
        for batch in images(6).split(3):
            time.sleep(0.1)
            yield batch

    assert stage_seconds(net, stages, slowly(), device=CPU)["1"] < 0.1 / 6


def test_times_are_worked_out_from_the_clock(monkeypatch):
    """A clock that moves by known steps: each stage costs its way there and its own mean, not earlier means."""
    net = nn.Sequential(nn.Identity(), nn.Identity())
    stages = resolve_stages(nn.Sequential(Wait(0), Wait(0)), ["0", "1"], images(1))
    # Start, reached, pooled, reached, pooled: a warm-up without a start, then two batches of four and two images.
    steps = [9, 9, 9, 9, 0, 1, 10, 100, 1000, 0, 2, 20, 200, 2000]
    ticks = itertools.accumulate(steps)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    seconds = run(net, stages, images(6), batch_size=4)
    assert seconds == {"0": pytest.approx((11 + 22) / 6), "1": pytest.approx((1101 + 2202) / 6)}


def test_a_pace_is_that_of_noise_for_a_while(monkeypatch):
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.batches = []

        def forward(self, x):
            self.batches.append(x)
            return x * 2

    net = nn.Sequential(nn.Identity(), Seen())
    stages = resolve_stages(nn.Sequential(nn.Identity(), Wait(0)), ["1"], images(1))
    options = {"device": CPU, "batch_size": 5}
    assert pace(net, stages, (3, 16, 16), **options, seconds=0)["1"] > 0
    warm_up, only = (batch for batch in net[1].batches if len(batch) == 5)
    assert only.shape == (5, 3, 16, 16)
    assert torch.equal(warm_up, only)
    assert float(only.std()) == pytest.approx(1, abs=0.05)
    monkeypatch.setattr(timing, "_SECONDS", 1e9)
    monkeypatch.setattr(timing, "_MOST", 4)
    pace(net, stages, (3, 16, 16), **options)
    assert sum(len(batch) == 5 for batch in net[1].batches) == 2 + 5


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
    with pytest.raises(CaptureError):
        stage_seconds(net, stages, [], device=CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_times_grow_with_depth():
    net, stages = compact()
    times = list(run(net.cuda(), stages, images(), device=torch.device("cuda")).values())
    assert 0 < times[0] < times[-1]
