"""Several networks trained at once: each ends as it would alone, and none is disturbed by another."""

import copy
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from transferscope.errors import InputError, SourceError
from transferscope.networks import CompactResNet
from transferscope.protocols.training.inputs import CachedViews
from transferscope.protocols.training.loop import Member
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.protocols.training.together import fit_together

RECIPE = Recipe(epochs=4, batch_size=8, shift=0.25)


def images(n, seed, wrong=0.0):
    """Noise images (n, 3, 8, 8) in float64, in which the class brightens one channel, and some wrong labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    noise = torch.randn(n, 3, 8, 8, generator=draw, dtype=torch.float64)
    noise[torch.arange(n), labels] += 1.0
    random = torch.randint(0, 3, (n,), generator=draw)
    return noise, torch.where(torch.rand(n, generator=draw) < wrong, random, labels)


def seeded(seed, build):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build().double()


def compact():
    return CompactResNet(3, width=4)


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def member(seed, build=small, *, n=24, wrong=0.0, validated=True, **options):
    validation = images(15, 100 + seed) if validated else None
    return Member(seeded(seed, build), *images(n, seed, wrong), validation, seed=seed, **options)


def alone(one, recipe):
    """Train a copy of the member's network by itself; return it and its record."""
    net = copy.deepcopy(one.net)
    record = fit(net, one.inputs, one.labels, one.validation, recipe=recipe, seed=one.seed, rates=one.rates)
    return net, record


def assert_as_alone(members, recipe):
    expected = [alone(one, recipe) for one in members]
    records = fit_together(members, recipe=recipe)
    assert len(records) == len(members)
    for one, record, (net, single) in zip(members, records, expected, strict=True):
        ours, theirs = ({**asdict(each), "seconds": 0, "stopped": 0} for each in (record, single))
        assert ours == pytest.approx(theirs, rel=1e-9, nan_ok=True)
        assert record.stopped == single.stopped
        assert not one.net.training
        ours, theirs = one.net.state_dict(), net.state_dict()
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-10)
    return records


@pytest.mark.parametrize("optimiser", ["sgd", "adamw", "muon"])
def test_each_network_ends_as_it_would_alone(optimiser):
    recipe = replace(RECIPE, optimiser=optimiser, learning_rate=0.003 if optimiser == "adamw" else 0.05)
    records = assert_as_alone([member(seed, compact) for seed in range(3)], recipe)
    assert len({record.validation_loss for record in records}) == 3


def test_one_stops_early_and_the_others_go_on():
    members = [member(seed, wrong=wrong) for seed, wrong in enumerate((0.0, 1.0, 0.0, 1.0))]
    for optimiser in ("sgd", "adamw"):
        recipe = replace(RECIPE, epochs=12, patience=1, learning_rate=0.02, optimiser=optimiser)
        records = assert_as_alone([replace(one, net=copy.deepcopy(one.net)) for one in members], recipe)
        assert len({record.epochs for record in records}) > 1
        assert {"early", "finished"} >= {record.stopped for record in records}
        assert any(record.stopped == "early" and record.best_epoch < record.epochs < 12 for record in records)


def test_without_validation_the_last_weights_are_kept():
    records = assert_as_alone([member(seed, validated=False) for seed in range(2)], RECIPE)
    assert [(record.stopped, record.best_epoch) for record in records] == [("finished", 4)] * 2


def test_kept_views_frozen_parts_and_learning_rates_are_as_alone():
    members = []
    for seed in range(2):
        views = torch.stack([images(24, 10 * seed + view)[0] for view in range(2)])
        options = {"rates": {"1": 0.0, "2": 0.0, "4.weight": 0.5}}
        members.append(replace(member(seed, **options), inputs=CachedViews(views)))
    before = copy.deepcopy(members[0].net.state_dict())
    assert_as_alone(members, RECIPE)
    changed = {name for name, value in members[0].net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"4.weight", "4.bias"}, "the averages of frozen batch norm stay too"
    assert all(parameter.requires_grad for parameter in members[0].net.parameters())


def test_a_network_that_diverges_is_told_apart_and_the_others_end_as_alone():
    members = [member(seed) for seed in range(3)]
    broken = members[1].inputs.clone()
    broken[5] = float("nan")
    expected = [alone(members[i], RECIPE)[0] for i in (0, 2)]
    done = []
    records = fit_together(
        [members[0], replace(members[1], inputs=broken), members[2]],
        recipe=RECIPE, on_epoch=lambda *epochs: done.append(epochs),
    )  # fmt: skip
    assert isinstance(records[1], SourceError)
    assert "diverged in epoch 1" in str(records[1])
    assert done == [(epoch, 4) for epoch in range(1, 5)]
    for i, net in zip((0, 2), expected, strict=True):
        assert records[i].epochs == 4
        for name, value in net.state_dict().items():
            torch.testing.assert_close(members[i].net.state_dict()[name], value, rtol=1e-8, atol=1e-10)


def test_the_time_is_shared_and_the_budget_is_that_of_all():
    records = fit_together([member(seed, compact) for seed in range(3)], recipe=replace(RECIPE, budget_s=1e-9))
    assert [(record.stopped, record.steps, record.images_seen) for record in records] == [("budget", 1, 6)] * 3
    assert records[0].seconds == records[1].seconds > 0


def test_dropout_differs_between_networks_and_repeats_with_the_seed():
    def build():
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3))

    def run():
        one = member(0, build)
        members = [one, replace(one, net=copy.deepcopy(one.net))]
        fit_together(members, recipe=RECIPE)
        return [each.net[2].weight for each in members]

    state = torch.random.get_rng_state()
    first, second = run(), run()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    assert not torch.equal(*first)


def test_bfloat16_trains_all_and_keeps_the_weights_in_full_precision():
    members = [replace(one, net=one.net.float()) for one in (member(0), member(1))]
    records = fit_together(members, recipe=replace(RECIPE, precision="bfloat16"))
    assert all(record.epochs == 4 for record in records)
    assert {parameter.dtype for one in members for parameter in one.net.parameters()} == {torch.float32}


def test_no_network_is_no_work():
    assert fit_together([], recipe=RECIPE) == []


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"build": compact}, "structure"),
        ({"n": 25}, "shape of inputs"),
        ({"validated": False}, "shape of validation images"),
        ({"rates": {"1": 0.5}}, "rates"),
    ],
)
def test_networks_that_differ_in_more_than_their_weights_are_an_input_error(other, kind):
    with pytest.raises(InputError, match=f"have the same {kind}, but member 1 differs from member 0"):
        fit_together([member(0), member(1, **other)], recipe=RECIPE)


def test_networks_in_different_precision_are_an_input_error():
    with pytest.raises(InputError, match="the same parameters and buffers"):
        fit_together([member(0), replace(member(1), net=member(1).net.float())], recipe=RECIPE)
