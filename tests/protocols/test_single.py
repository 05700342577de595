"""Training from scratch: it learns, repeats bit by bit, stops as told, and sets the right images aside."""

import contextlib
import copy
import itertools
import math
import re
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from transferscope.activations.tracing import evaluating
from transferscope.data.images import Transform
from transferscope.data.target import load_target
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet
from transferscope.protocols import scratch
from transferscope.protocols.finetuning import recipes
from transferscope.protocols.training import inputs, loop, resuming, single
from transferscope.protocols.training.muon import Muon
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import evaluate, fit

pytestmark = pytest.mark.bounds

CPU = torch.device("cpu")


def noise(n, classes=3, size=8, seed=0, label_noise=0.0):
    """Noise images (n, 3, size, size) in which the class brightens one channel."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randn(n, 3, size, size, generator=draw)
    images[torch.arange(n), labels % 3] += 1.0
    if label_noise:
        wrong = torch.rand(n, generator=draw) < label_noise
        labels = torch.where(wrong, torch.randint(0, classes, (n,), generator=draw), labels)
    return images, labels


def network(seed=0, classes=3, **options):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return CompactResNet(classes, **{"width": 4, **options})


class Dropping(nn.Sequential):
    """A linear network whose training depends on dropout too."""

    def __init__(self):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            super().__init__(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 64, 3))


def trained(net, *, n=48, seed=0, label_noise=0.0, on_epoch=None, **options):
    images, labels = noise(n, label_noise=label_noise)
    recipe = Recipe(**{"epochs": 3, "batch_size": 16, **options})
    record = fit(net, images, labels, noise(30, seed=9), recipe=recipe, seed=seed, on_epoch=on_epoch)
    return net, record


def equal_weights(x, y):
    return all(torch.equal(a, b) for a, b in zip(x.state_dict().values(), y.state_dict().values(), strict=True))


# --- the loop -----------------------------------------------------------------------------------------------------


def test_it_learns_digits():
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(8).sub(1)[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(digits.target)
    net = network(classes=10, width=8)
    recipe = Recipe(epochs=8, shift=0.0)
    record = fit(net, images[:700], labels[:700], (images[700:900], labels[700:900]), recipe=recipe, seed=0)
    _, accuracy = evaluate(net, images[900:], labels[900:])
    assert accuracy > 0.9
    assert record.validation_accuracy > 0.9
    assert (record.stopped, record.epochs, record.steps) == ("finished", 8, 8 * 22)


@pytest.mark.parametrize("build", [network, Dropping])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(build):
    torch.manual_seed(1)
    one, first = trained(build(), seed=5)
    torch.manual_seed(2)
    torch.rand(3)
    two, second = trained(build(), seed=5)
    other, _ = trained(build(), seed=6)
    assert equal_weights(one, two)
    assert (first.best_epoch, first.validation_accuracy) == (second.best_epoch, second.validation_accuracy)
    assert not equal_weights(one, other)


def test_global_state_is_left_alone():
    before = torch.random.get_rng_state()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    trained(Dropping())
    with pytest.raises(SourceError):
        trained(Dropping(), learning_rate=1e30)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (cudnn.deterministic, cudnn.benchmark) == flags
    assert torch.is_grad_enabled()


def test_the_weights_of_the_best_epoch_come_back():
    losses, weights = [], []
    net = network()

    def watch(done, total):
        assert (done, total) == (len(losses) + 1, 8)
        losses.append(evaluate(net, *noise(30, seed=9))[0])
        weights.append(copy.deepcopy(net))

    _, record = trained(net, epochs=8, learning_rate=0.1, label_noise=1.0, on_epoch=watch)
    loss, accuracy = evaluate(net, *noise(30, seed=9))
    best = int(np.argmin(losses))
    assert best < len(losses) - 1, "the task has to overfit for this test to say anything"
    assert record.best_epoch == best + 1
    assert loss == losses[best]
    assert accuracy == record.validation_accuracy
    assert equal_weights(net, weights[best])
    assert not net.training


@pytest.fixture
def scripted(monkeypatch):
    """Let validation losses be these, one per epoch, whatever the network does; the accuracy is a tenth of them."""

    def script(*losses):
        left = iter(losses)

        def evaluate(net, _images, _labels, **_options):
            net.eval()
            loss = next(left)
            return loss, loss / 10

        monkeypatch.setattr(single, "evaluate", evaluate)

    return script


@pytest.mark.parametrize(
    ("losses", "best", "epochs", "stopped"),
    [
        ([3, 1, 2, 0.5, 0.7, 0.6], 4, 6, "finished"),
        ([3, 2, 1, 1, 1, 1], 3, 5, "early"),  # equal is not better
        ([1, 2, 2, 2, 2, 2], 1, 5, "early"),  # patience counts from half the schedule on
        ([3, 2, 2, 2, 1, 2], 5, 6, "finished"),
        ([9, 9, 9, 1, 2, 2], 4, 6, "finished"),  # patience ends with the last epoch
    ],
)
def test_best_epoch_and_early_stop_follow_the_validation_loss(scripted, losses, best, epochs, stopped):
    scripted(*losses)
    net, weights = network(), []
    trained(net, epochs=6, patience=2, on_epoch=lambda _done, _total: weights.append(copy.deepcopy(net)))
    scripted(*losses)
    again, record = trained(network(), epochs=6, patience=2)
    assert (record.best_epoch, record.epochs, record.stopped) == (best, epochs, stopped)
    assert record.validation_accuracy == losses[best - 1] / 10
    assert [i for i, each in enumerate(weights, 1) if equal_weights(each, again)] == [best]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_loss_that_is_not_finite_is_a_source_error(scripted, loss):
    scripted(1.0, loss)
    with pytest.raises(SourceError, match=rf"diverged in epoch 2 \(validation loss {loss}\)"):
        trained(network())


def test_it_stops_early_when_the_validation_loss_no_longer_falls():
    _, record = trained(Dropping(), epochs=60, patience=2, label_noise=1.0, learning_rate=0.3)
    assert record.stopped == "early"
    assert record.epochs == max(record.best_epoch, 30) + 2
    assert record.steps == 4 * record.epochs  # 48 images in batches of a quarter


def test_the_budget_stops_training_in_the_middle_of_an_epoch():
    _, record = trained(network(), n=96, epochs=5, batch_size=4, budget_s=1e-9)
    assert (record.stopped, record.epochs, record.steps) == ("budget", 1, 1)


def test_a_budget_that_runs_out_with_the_last_step_was_enough():
    _, record = trained(network(), n=2, epochs=1, budget_s=1e-9)
    assert (record.stopped, record.steps) == ("finished", 1)
    _, record = trained(network(), n=2, epochs=2, budget_s=1e-9)
    assert (record.stopped, record.steps) == ("budget", 1)


DAY_S = 24 * 60 * 60.0


@pytest.mark.parametrize(("budget_s", "stopped"), [(None, "finished"), (math.inf, "finished"), (DAY_S, "budget")])
def test_a_day_is_a_budget_and_none_is_none(monkeypatch, budget_s, stopped):
    days = itertools.count(1)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 2 * DAY_S * next(days)))
    _, record = trained(network(), epochs=2, budget_s=budget_s)
    assert record.stopped == stopped


def test_infinity_is_no_budget_and_what_measure_trains_has_none():
    assert Recipe(budget_s=math.inf) == Recipe(budget_s=None)
    assert Recipe(budget_s=DAY_S).limit_s == DAY_S
    for optimiser in ("sgd", "adamw"):
        assert {recipe.budget_s for recipe in recipes(optimiser).values()} == {None}


def test_a_slow_network_stops_soon_after_its_budget():
    class Slow(Dropping):
        def forward(self, x):
            time.sleep(0.02)
            return super().forward(x)

    _, record = trained(Slow(), epochs=1000, budget_s=0.2)
    assert record.stopped == "budget"
    assert 0.2 < record.seconds < 2
    assert 1 <= record.steps <= 11


@pytest.mark.parametrize("learning_rate", [1e6, 1e30])
def test_diverging_training_is_a_source_error(learning_rate):
    with pytest.raises(SourceError, match=r"Training diverged in epoch 1.*lower the learning rate"):
        trained(nn.Sequential(nn.Flatten(), *[nn.Linear(192, 192) for _ in range(6)]), learning_rate=learning_rate)


@pytest.mark.parametrize("n", [2, 3, 5, 7, 9, 11, 17, 33])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_no_step_sees_a_single_image_and_every_image_is_seen(n, batch_size):
    """Batch norm on pooled features raises for a batch of one."""
    sizes = []
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3))
    net.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])) if module.training else None)
    _, record = trained(net, n=n, epochs=1, batch_size=batch_size)
    assert sum(sizes) == n
    assert min(sizes) >= 2
    assert max(sizes) <= max(batch_size, 3)
    assert record.steps == len(sizes)


def test_evaluation_is_the_mean_over_all_images_whatever_the_batches():
    net, (images, labels) = network(), noise(37)
    with torch.no_grad():
        logits = net.eval()(images).double()
    truth = labels.numpy()
    probabilities = torch.softmax(logits, 1).numpy()
    loss = -np.log(probabilities[np.arange(37), truth]).mean()
    accuracy = (probabilities.argmax(1) == truth).mean()
    net.train()
    for batch_size in (256, 10):
        assert evaluate(net, images, labels, batch_size=batch_size) == pytest.approx((loss, accuracy), rel=1e-6)
    assert not net.training


def test_shifted_images_are_shifts_with_the_border_repeated():
    images = torch.rand(64, 3, 16, 16)
    shifted = inputs.shifted(images, 0.125, torch.Generator().manual_seed(0)).numpy()
    seen = set()
    for before, after in zip(images.numpy(), shifted, strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)), mode="edge")
        fits = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[:, y : y + 16, x : x + 16], after)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 15, "each image has an offset of its own"
    assert [{offset[axis] for offset in seen} for axis in (0, 1)] == [set(range(5))] * 2


def test_without_shift_the_images_stay_as_they_are():
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(inputs.shifted(images, 0.0, torch.Generator()), images)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("budget_s", float("nan")),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_an_input_error(name, value):
    with pytest.raises(InputError, match=f"`{name}` to be positive, but got {value}"):
        Recipe(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "a whole number of at least 1"),
        ("epochs", 2.5, "a whole number of at least 1"),
        ("epochs", True, "a whole number of at least 1"),
        ("batch_size", -1, "a whole number of at least 1"),
        ("patience", 0, "a whole number of at least 1"),
        ("views", 0, "a whole number of at least 1"),
        ("learning_rate", float("inf"), "finite"),
        ("momentum", 1.0, "at least 0 and below 1"),
        ("shift", -0.1, "at least 0 and below 1"),
        ("weight_decay", -1.0, "0 or a positive number"),
        ("optimiser", "adam", "one of sgd, adamw, muon"),
        ("precision", "float16", "one of auto, float32, bfloat16"),
        ("schedule", "linear", "one of cosine, constant"),
        ("min_steps", -1, "a whole number of at least 0"),
        ("min_steps", 0.5, "a whole number of at least 0"),
    ],
)
def test_a_recipe_with_a_senseless_value_is_an_input_error(name, value, expected):
    with pytest.raises(InputError, match=f"`{name}` to be {expected}, but got {value!r}"):
        Recipe(**{name: value})


# --- steps, learning rates and frozen parts -----------------------------------------------------------------------


def linear():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize("shape", ["cosine", "constant"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_steps_are_those_of_the_plain_optimiser_on_a_schedule(optimiser, shape):
    """Four images make two steps an epoch; with equal images their order does not matter."""
    images, labels = noise(1)
    images, labels = images.double().expand(4, -1, -1, -1), labels.expand(4)
    reference, net = linear(), linear()
    first, second = (list(reference[i].parameters()) for i in (1, 3))
    groups = [{"params": first, "lr": 0.003}, {"params": second, "lr": 0.01}]
    if optimiser == "sgd":
        plain = torch.optim.SGD(groups, momentum=0.8, nesterov=True, weight_decay=0.1, foreach=False)
    else:
        plain = torch.optim.AdamW(groups, betas=(0.8, 0.999), weight_decay=0.1, foreach=False)
    if shape == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(plain, 10)
    else:
        schedule = torch.optim.lr_scheduler.ConstantLR(plain, factor=1.0)
    for _ in range(10):
        plain.zero_grad()
        nn.functional.cross_entropy(reference(images), labels).backward()
        plain.step()
        schedule.step()
    recipe = Recipe(
        epochs=5, learning_rate=0.01, momentum=0.8, weight_decay=0.1, optimiser=optimiser, shift=0.0, schedule=shape
    )
    record = fit(net, images, labels, None, recipe=recipe, seed=0, rates={"1": 0.3})
    assert (record.steps, record.images_seen) == (10, 20)
    for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_muon_steps_kernels_by_what_is_left_of_their_singular_values_and_the_rest_as_sgd():
    """The singular vectors are those of the step that momentum asks for, by NumPy; wide kernels, and tall ones."""
    draw = torch.Generator().manual_seed(0)
    gradients = [
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((3, 2, 2, 2), (12, 1, 1, 3), (5,))
    ]
    weights = [nn.Parameter(torch.ones_like(gradient)) for gradient in gradients]
    twin = nn.Parameter(torch.ones_like(gradients[-1]))
    options = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.5}
    ours = Muon([{"params": weights[:2], "kernels": True}, {"params": weights[2:]}], **options)
    plain = torch.optim.SGD([twin], nesterov=True, **options)
    expected = [np.ones(gradient.shape) for gradient in gradients[:2]]
    for step in (1, 2):
        for weight, gradient in zip([*weights, twin], [*gradients, gradients[-1]], strict=True):
            weight.grad = gradient * step
        ours.step()
        plain.step()
        for i, gradient in enumerate(gradients[:2]):
            # Momentum of one gradient that grows changes its length alone.
            u, values, v = np.linalg.svd(gradient.flatten(1).numpy(), full_matrices=False)
            values /= np.linalg.norm(values)
            for _ in range(5):
                values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
            root = (12 / 3) ** 0.5 if i else 1.0
            expected[i] = expected[i] * (1 - 0.1 * 0.5) - 0.1 * root * ((u * values) @ v).reshape(gradient.shape)
    for ours_now, there in zip(weights, [*expected, twin.detach().numpy()], strict=True):
        np.testing.assert_allclose(ours_now.detach().numpy(), there, rtol=1e-9)


def test_muon_leaves_what_has_faded_away_where_it_is():
    weight = torch.ones(4, 2, 3, 3)
    muon = Muon([{"params": [weight], "kernels": True}], lr=0.1)
    for gradient in (1e-21, 0.0):
        weight.grad = torch.full_like(weight, gradient)
        muon.step()
    torch.testing.assert_close(weight, torch.ones_like(weight))


def test_without_validation_the_whole_schedule_is_trained_and_the_last_weights_stay():
    net, last = network(), []
    images, labels = noise(24, label_noise=1.0)
    recipe = Recipe(epochs=6, batch_size=8, patience=1)
    record = fit(
        net, images, labels, None, recipe=recipe, seed=0,
        on_epoch=lambda _done, _total: last.append(copy.deepcopy(net.state_dict())),
    )  # fmt: skip
    assert (record.epochs, record.best_epoch, record.stopped) == (6, 6, "finished")
    assert record.images_seen == 6 * 24
    assert np.isnan([record.validation_accuracy, record.validation_loss]).all()
    assert all(torch.equal(value, last[-1][name]) for name, value in net.state_dict().items())
    assert not net.training


@pytest.mark.parametrize(
    ("n", "epochs", "min_steps", "expected"), [(48, 3, 0, 3), (48, 3, 12, 3), (48, 3, 13, 4), (2, 1, 7, 7)]
)
def test_few_images_are_seen_in_as_many_epochs_as_make_the_least_steps(n, epochs, min_steps, expected):
    """48 images, in quarters, are four steps an epoch, two images are one."""
    images, labels = noise(n)
    totals = []
    recipe = Recipe(epochs=epochs, batch_size=16, min_steps=min_steps)
    record = fit(
        net := network(), images, labels, None, recipe=recipe, seed=0, on_epoch=lambda *told: totals.append(told)
    )
    assert recipe.most_epochs(n) == record.epochs == expected
    assert totals == [(epoch, expected) for epoch in range(1, expected + 1)]
    same = network()
    fit(same, images, labels, None, recipe=Recipe(epochs=expected, batch_size=16), seed=0)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_run_at_a_constant_rate_is_the_beginning_of_a_longer_one(optimiser):
    """So one run shows what a shorter one would have ended with, after every number of steps."""
    images, labels = noise(24)
    options = {"batch_size": 8, "learning_rate": 0.01, "optimiser": optimiser}
    same = {}
    for schedule in ("constant", "cosine"):
        short, long, after = Mixed(), Mixed(), []
        fit(short, images, labels, None, recipe=Recipe(epochs=2, schedule=schedule, **options), seed=3)
        fit(
            long, images, labels, None, recipe=Recipe(epochs=4, schedule=schedule, **options), seed=3,
            on_epoch=lambda _done, _total, long=long, after=after: after.append(copy.deepcopy(long)),
        )  # fmt: skip
        assert not equal_weights(short, long)
        same[schedule] = equal_weights(short, after[1])
    assert same == {"constant": True, "cosine": False}


# --- a callback after each step -----------------------------------------------------------------------------------


def test_the_callback_sees_the_weights_of_each_step_and_may_evaluate_the_network():
    images, labels = noise(24)
    recipe = Recipe(epochs=2, batch_size=6, precision="float32")
    plain, watched, seen = Mixed(), Mixed(), []

    def watch(done):
        assert watched[0].training
        with evaluating(watched):
            seen.append((done, evaluate(watched, images, labels)[0], copy.deepcopy(watched)))

    expected = fit(plain, images, labels, None, recipe=recipe, seed=0)
    record = fit(watched, images, labels, None, recipe=recipe, seed=0, on_step=watch)
    assert [done for done, _, _ in seen] == list(range(1, 9))
    np.testing.assert_equal(like(record), like(expected))
    assert equal_weights(watched, plain)
    assert equal_weights(watched, seen[-1][2])
    assert len({loss for _, loss, _ in seen}) == 8, "each step has weights of its own"


def test_the_time_of_the_callback_counts_neither_in_the_record_nor_in_the_budget(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    net = linear().float()
    net.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1.0))
    recipe = Recipe(epochs=2, batch_size=6, budget_s=10.0)
    record = fit(
        net, *noise(24), None, recipe=recipe, seed=0, on_step=lambda _done: clock.__setitem__(0, clock[0] + 100.0)
    )
    assert (record.stopped, record.steps, record.seconds) == ("finished", 8, 8.0)


def test_the_callback_of_a_run_that_goes_on_is_told_of_the_steps_that_are_left(tmp_path, at_every_epoch):
    seen = []
    run_of(tmp_path / "run.pt", interrupt_after=2)
    run_of(tmp_path / "run.pt", on_step=seen.append)
    assert seen == list(range(9, 25))  # 24 images in batches of a quarter: four steps an epoch


def test_without_validation_a_training_loss_that_is_not_finite_is_a_source_error():
    images, labels = noise(24)
    images[3] = float("nan")
    with pytest.raises(SourceError, match=r"diverged in epoch 1 \(training loss nan\)"):
        fit(network(), images, labels, None, recipe=Recipe(epochs=3), seed=0)


def test_frozen_parts_stay_as_they_are_averages_of_batch_norm_too():
    net, modes = network(), []
    net.blocks[0].register_forward_hook(lambda module, _args, _out: modes.append(module.bn1.training))
    net.blocks[1].bn1.weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    images, labels = noise(24)
    fit(
        net, images, labels, None, recipe=Recipe(epochs=2, batch_size=8), seed=0,
        rates={"stem": 0, "blocks": 0, "blocks.1": 1, "blocks.1.conv1": 0, "blocks.1.bn2.bias": 0},
    )  # fmt: skip
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    counted = ("running_mean", "running_var", "num_batches_tracked")
    expected = {"head.weight", "head.bias", "blocks.1.conv2.weight", "blocks.1.bn1.bias", "blocks.1.bn2.weight"}
    expected |= {f"blocks.1.{norm}.{name}" for norm in ("bn1", "bn2") for name in counted}
    assert changed == expected
    assert not any(modes)
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert frozen == {"blocks.1.bn1.weight"}, "as it was handed in"


def test_what_the_network_itself_keeps_in_evaluation_mode_stays_there():
    class Kept(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[0].eval()
            return self

    net = Kept(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 3))
    images, labels = noise(24)
    fit(net, images, labels, None, recipe=Recipe(epochs=1), seed=0)
    assert not net[0].running_mean.any()
    assert net[2].running_mean.all()
    assert not torch.equal(net[0].weight, torch.ones(3)), "its weights are trained"


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"stem": -1.0}, "0 or positive, but got -1.0 for 'stem'"),
        ({"stem": float("nan")}, "0 or positive, but got nan"),
        ({"blocks.7": 0.5, "block": 1.0}, "no parameters under 'block', 'blocks.7'"),
        ({"": 0.0}, "all of CompactResNet is frozen"),
    ],
)
def test_learning_rates_that_cannot_be_followed_are_an_input_error(rates, message):
    with pytest.raises(InputError, match=message):
        fit(network(), *noise(8), None, recipe=Recipe(), seed=0, rates=rates)


@pytest.mark.parametrize(
    ("labels", "validation", "message"),
    [
        (7, None, "one label for each .* but got 8 images and 7 labels"),
        (8, (5, 4), "one validation label for each .* 5 images and 4 labels"),
        (8, (0, 0), "at least one validation image"),
    ],
)
def test_labels_that_do_not_fit_their_images_are_an_input_error(labels, validation, message):
    images, all_labels = noise(8)
    held = None if validation is None else (images[: validation[0]], all_labels[: validation[1]])
    with pytest.raises(InputError, match=message):
        fit(network(), images, all_labels[:labels], held, recipe=Recipe(), seed=0)


def test_bfloat16_computes_coarsely_and_keeps_the_weights_in_full_precision():
    exact, expected = trained(linear().float(), precision="auto")
    same, _ = trained(linear().float(), precision="float32")
    coarse, record = trained(linear().float(), precision="bfloat16")
    assert equal_weights(exact, same), "the CPU computes in float32 unless told otherwise"
    assert {parameter.dtype for parameter in coarse.parameters()} == {torch.float32}
    assert not equal_weights(coarse, exact)
    assert record.validation_loss == pytest.approx(expected.validation_loss, abs=0.05)


def test_the_weights_come_back_contiguous_and_a_network_that_needs_it_is_trained_contiguous():
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head, self.formats = nn.Conv2d(3, 4, 3), nn.Linear(144, 3), set()

        def forward(self, x):
            self.formats.add(self.conv.weight.is_contiguous())
            out = self.conv(x)
            return self.head(out.view(len(out), 144))

    for net in (Viewing(), network()):
        trained(net)
        assert all(tensor.is_contiguous() for tensor in net.state_dict().values())
    viewing = Viewing()
    _, record = trained(viewing)
    assert record.epochs == 3
    assert viewing.formats == {False, True}, "it is tried out in the quicker format first"


# --- what is read -------------------------------------------------------------------------------------------------


def batches(data, seed=0, epochs=3, shift=0.0):
    """Return the inputs and labels of each of these epochs, put together from batches of four."""
    labels = torch.arange(10)
    made = inputs.Batches(
        data, labels, shift=shift, seed=seed, device=CPU, dtype=torch.float32, memory_format=torch.channels_last
    )
    out = []
    for epoch in range(1, epochs + 1):
        made.begin(epoch)
        parts = [made.batch(start, min(start + 4, 10)) for start in (0, 4, 8)]
        out.append(tuple(torch.cat(part) for part in zip(*parts, strict=True)))
    return out


def test_each_epoch_reads_all_images_in_an_order_of_its_own():
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    epochs = batches(images)
    for read, labels in epochs:
        assert torch.equal(read[:, 0, 0, 0].long(), labels), "labels stay with their images"
        assert sorted(labels.tolist()) == list(range(10))
    orders = [tuple(labels.tolist()) for _, labels in epochs]
    assert len(set(orders)) == 3
    assert len({*orders, *(tuple(labels.tolist()) for _, labels in batches(images, seed=1))}) == 6


def test_shifts_differ_between_epochs():
    images = torch.rand(10, 3, 8, 8)
    shifted = [read[labels.argsort()] for read, labels in batches(images, shift=0.25)]
    assert not any(torch.equal(shifted[i], shifted[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_kept_views_take_turns_and_are_not_shifted():
    views = torch.rand(2, 10, 3, 8, 8)
    for epoch, (read, labels) in enumerate(batches(inputs.CachedViews(views), epochs=4, shift=0.25)):
        assert torch.equal(read, views[epoch % 2][labels])


def test_training_on_kept_views_of_a_frozen_prefix_is_training_behind_it():
    net, suffix = network(), network()
    images, labels = noise(24)
    recipe = Recipe(epochs=3, batch_size=8, shift=0.0)
    with torch.no_grad():
        stem = net.eval().stem(images)
    behind = nn.Sequential(suffix.blocks, suffix.pool, suffix.head)
    fit(net, images, labels, None, recipe=recipe, seed=0, rates={"stem": 0})
    fit(behind, inputs.CachedViews(stem[None]), labels, None, recipe=recipe, seed=0)
    for name, value in suffix.state_dict().items():
        if not name.startswith("stem"):
            torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-3, atol=1e-4)


# --- going on after an interruption -------------------------------------------------------------------------------


class Mixed(nn.Sequential):
    """Batch norm, dropout and a frozen layer: all that has a state."""

    def __init__(self):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
                nn.Dropout(0.3), nn.Linear(64, 3),
            )  # fmt: skip


def run_of(state, *, interrupt_after=None, seed=3, validated=True, net=None, on_step=None, **options):
    """Train a new network, interrupted after an epoch if wanted; return it, its record and the epochs that it saw."""
    net, seen = Mixed() if net is None else net, []

    def watch(done, _total):
        seen.append(done)
        if done == interrupt_after:
            raise KeyboardInterrupt

    images, labels = noise(24, label_noise=0.5)
    recipe = Recipe(**{"epochs": 6, "batch_size": 8, "learning_rate": 0.02, **options})
    validation = noise(12, seed=9) if validated else None
    record = None
    with contextlib.suppress(KeyboardInterrupt):
        record = fit(
            net, images, labels, validation, recipe=recipe, seed=seed, rates={"0": 0.0, "2": 0.5}, state=state,
            on_epoch=watch, on_step=on_step,
        )  # fmt: skip
    return net, record, seen


def like(record):
    return {name: value for name, value in vars(record).items() if name != "seconds"}


@pytest.fixture
def at_every_epoch(monkeypatch):
    monkeypatch.setattr(resuming, "INTERVAL_S", 0.0)


@pytest.mark.parametrize("epoch", [1, 4, 6])
@pytest.mark.parametrize(
    "options",
    [{}, {"optimiser": "adamw", "learning_rate": 0.003}, {"validated": False}, {"patience": 1, "learning_rate": 0.5}],
)
def test_an_interrupted_run_ends_bit_by_bit_like_one_that_was_not(tmp_path, at_every_epoch, epoch, options):
    state = tmp_path / "new folder" / "run.pt"
    undisturbed, expected, all_epochs = run_of(None, **options)
    interrupted, nothing, _ = run_of(state, interrupt_after=min(epoch, expected.epochs), **options)
    assert nothing is None
    assert {parameter.requires_grad for parameter in interrupted.parameters()} == {True}
    torch.load(state, weights_only=True)
    net, record, seen = run_of(state, **options)
    assert seen == all_epochs[epoch:]
    assert equal_weights(net, undisturbed)
    np.testing.assert_equal(like(record), like(expected))
    assert not state.exists()
    assert list(state.parent.iterdir()) == []


def test_a_short_run_writes_no_state(tmp_path):
    run_of(tmp_path / "run.pt", interrupt_after=2)
    assert list(tmp_path.iterdir()) == []


def test_the_seconds_before_an_interruption_count(tmp_path, at_every_epoch):
    run_of(tmp_path / "run.pt", interrupt_after=2)
    kept = torch.load(tmp_path / "run.pt", weights_only=True)
    kept["state"]["loop"]["_seconds"] = 1000.0
    torch.save(kept, tmp_path / "run.pt")
    _, record, seen = run_of(tmp_path / "run.pt")
    assert (record.stopped, record.epochs, seen) == ("budget", 2, [])


@pytest.mark.parametrize("damage", ["cut short", "not a state", "empty", "another seed", "another recipe"])
def test_a_state_that_is_of_no_use_is_named_and_the_run_starts_anew(tmp_path, at_every_epoch, damage):
    state = tmp_path / "run.pt"
    foreign = {"another seed": {"seed": 4}, "another recipe": {"epochs": 7}}.get(damage, {})
    run_of(state, interrupt_after=2, **foreign)
    whole = state.read_bytes()
    state.write_bytes({"cut short": whole[: len(whole) // 2], "not a state": b"text", "empty": b""}.get(damage, whole))
    with pytest.warns(TransferscopeWarning, match=r"run.pt cannot be used \(.+\); training starts anew"):
        net, record, seen = run_of(state)
    undisturbed, expected, _ = run_of(None)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert equal_weights(net, undisturbed)
    assert like(record) == like(expected)
    assert not state.exists()


def test_a_full_disk_costs_the_state_and_not_the_run(tmp_path, at_every_epoch, monkeypatch):
    tries = []

    def full(path, data):
        tries.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resuming, "write_atomically", full)
    with pytest.warns(TransferscopeWarning, match=r"run.pt cannot be written \(.*No space left") as caught:
        net, _, _ = run_of(tmp_path / "run.pt")
    assert equal_weights(net, run_of(None)[0])
    assert len(caught) == len(tries) == 1


# --- relative gradient norms --------------------------------------------------------------------------------------


def test_relative_gradient_norms_are_the_mean_over_batches_as_a_share_of_the_largest():
    net, (images, labels) = network().double(), noise(20)
    images = images.double()
    groups = {
        "stem": ["stem.0.weight", "stem.1.bias"],
        "head": ["head.weight", "head.bias"],
        "last": ["blocks.5.conv2.weight"],
    }
    ratios = {group: [] for group in groups}
    reference = copy.deepcopy(net).eval()
    own = dict(reference.named_parameters())
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        reference.zero_grad()
        nn.functional.cross_entropy(reference(images[rows]), labels[rows]).backward()
        for group, names in groups.items():
            gradient = np.concatenate([own[name].grad.numpy().ravel() for name in names])
            weights = np.concatenate([own[name].detach().numpy().ravel() for name in names])
            ratios[group].append(np.linalg.norm(gradient) / np.linalg.norm(weights))
    means = {group: np.mean(values) for group, values in ratios.items()}
    before = copy.deepcopy(net.state_dict())
    net.train()
    found = single.relative_gradient_norms(net, images, labels, groups, batch_size=8)
    assert found == pytest.approx({group: value / max(means.values()) for group, value in means.items()})
    assert max(found.values()) == 1.0
    assert net.training
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_group_of_zeros_gets_the_largest_rate_and_so_do_all_without_gradients():
    net = network()
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    groups = {"stem": ["stem.0.weight"], "head": ["head.weight", "head.bias"]}
    found = single.relative_gradient_norms(net, *noise(8), groups)
    assert found == {"stem": 1.0, "head": 1.0}  # a head of zeros passes no gradient on


@pytest.mark.parametrize("names", [[], ["stem.7"], ["head.weight", "stem.0.weight"]])
def test_groups_of_unknown_or_frozen_parameters_are_an_input_error(names):
    net = network()
    net.stem.requires_grad_(False)
    with pytest.raises(InputError, match="Expected group 'first' to name trainable parameters of CompactResNet"):
        single.relative_gradient_norms(net, *noise(8), {"first": names})


def test_gradients_that_are_not_finite_are_a_source_error():
    images, labels = noise(8)
    images[0] = float("nan")
    with pytest.raises(SourceError, match="Expected finite gradients of CompactResNet"):
        single.relative_gradient_norms(network(), images, labels, {"head": ["head.weight"]})


# --- the compact network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stem_stride"), [(32, 1), (64, 2)])
def test_the_compact_network_has_one_inner_resolution_for_both_sizes(size, stem_stride):
    net = scratch.compact_network(7, Transform(size, (0.5,) * 3, (0.25,) * 3)).eval()
    assert net.stem[0].stride == (stem_stride, stem_stride)
    with torch.no_grad():
        inner = net.blocks(net.stem(torch.zeros(2, 3, size, size)))
        assert net(torch.zeros(2, 3, size, size)).shape == (2, 7)
    assert inner.shape == (2, 64, 8, 8)


def test_the_compact_network_has_the_parameters_of_its_layers():
    def conv(inputs, outputs, side):
        return inputs * outputs * side * side + 2 * outputs  # and its batch norm

    def block(inputs, outputs):
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + shortcut

    w = 6
    blocks = [(w, w), (w, w), (w, 2 * w), (2 * w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w)]
    expected = conv(3, w, 3) + sum(block(*widths) for widths in blocks) + 4 * w * 5 + 5
    assert sum(p.numel() for p in CompactResNet(5, width=w).parameters()) == expected


@pytest.mark.parametrize(("sides", "size"), [((28, 32), 32), ((47, 47), 32), ((48, 90), 64), ((300, 200), 64)])
def test_the_transform_follows_the_size_of_the_images(sides, size):
    target = load_target((np.zeros((6, *sides, 3), np.uint8), np.arange(6) % 2))
    assert scratch.compact_transform(target).size == size


# --- setting images aside -----------------------------------------------------------------------------------------


def pictures(counts, size=8):
    """Return a target with so many random images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    # A clear mean colour for each class, so that there is something to learn.
    images[np.arange(len(labels)), :, :, labels % 3] //= 8
    return load_target((images, labels))


def split_positions(target, probe, seed=0):
    """Return the split as positions in `target`, the held-out ones found by content."""
    split = scratch.split_probe(target, probe, seed)
    place = {target.image(i).tobytes(): i for i in range(target.n_samples)}
    assert len(place) == target.n_samples
    held_out = [place[split.held_out.image(i).tobytes()] for i in range(split.held_out.n_samples)]
    np.testing.assert_array_equal(split.held_out.labels, target.labels[held_out])
    return set(probe.indices[split.train]), set(held_out)


@pytest.mark.parametrize(
    ("counts", "samples"), [((60, 60, 60), 60), ((25, 15), 20), ((30, 30), 60), ((50, 9, 4), 30), ((40, 2, 3), 45)]
)
def test_all_images_of_a_probe_but_the_held_out_ones_are_trained_on(counts, samples):
    target = pictures(counts)
    probe = target.probe(samples)
    train, held_out = split_positions(target, probe)
    assert not train & held_out
    in_probe = set(probe.indices)
    if target.n_samples - samples >= 10 * len(counts):
        assert held_out == set(range(target.n_samples)) - in_probe
        assert train == in_probe
    else:
        assert train | held_out == in_probe
        assert len(held_out) == pytest.approx(samples / 5, abs=len(counts))


@pytest.mark.parametrize("counts", [(40, 40), (40, 1), (3, 3, 3), (2, 2), (30, 2, 1, 5)])
def test_every_class_keeps_a_training_image(counts):
    with pytest.warns(TransferscopeWarning) if 1 in counts else contextlib.nullcontext():
        target = pictures(counts)
    probe = target.probe(target.n_samples)
    for seed in range(5):
        split = scratch.split_probe(target, probe, seed)
        assert set(probe.labels[split.train]) == set(range(len(counts)))


def test_a_split_is_stratified_and_repeats_by_seed():
    target = pictures((80, 40))
    probe = target.probe(120)
    splits = [scratch.split_probe(target, probe, seed) for seed in (0, 0, 1)]
    for split in splits:
        assert np.bincount(split.held_out.labels).tolist() == [16, 8]
        assert np.bincount(probe.labels[split.train]).tolist() == [64, 32]
    assert splits[0].held_out.hash == splits[1].held_out.hash != splits[2].held_out.hash
    np.testing.assert_array_equal(splits[0].train, splits[1].train)
    assert splits[0].train.tolist() != splits[2].train.tolist()


def test_about_a_thousand_images_are_held_out_of_many():
    target = pictures((2000, 1000), size=2)
    probe = target.probe(20)
    one, same, other = (scratch.split_probe(target, probe, seed) for seed in (0, 0, 1))
    assert one.held_out.hash == same.held_out.hash != other.held_out.hash
    held_out = one.held_out
    assert held_out.n_samples == pytest.approx(1000, abs=2)
    assert np.bincount(held_out.labels) == pytest.approx([667, 333], abs=3)


# --- heads --------------------------------------------------------------------------------------------------------

TINY = Transform(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def test_a_head_of_another_width_is_replaced_by_seed_and_nothing_else():
    net = network(classes=10)
    before = copy.deepcopy(net.state_dict())
    state = torch.random.get_rng_state()
    heads = []
    for seed in (0, 0, 1):
        changed = scratch.with_head(copy.deepcopy(net), 3, TINY, seed).eval()
        assert changed(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
        after = changed.state_dict()
        assert {name for name in before if before[name].shape != after[name].shape} == {"head.weight", "head.bias"}
        assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head."))
        heads.append(after["head.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_head_of_the_right_width_is_left_alone():
    net = network(classes=3)
    head, before = net.head, net.head.weight.clone()
    assert scratch.with_head(net, 3, TINY, 0) is net
    assert net.head is head
    assert torch.equal(head.weight, before)


def test_a_nested_head_without_bias_keeps_none():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Sequential(nn.Linear(144, 8), nn.Linear(8, 9, bias=False)))
    scratch.with_head(net, 5, TINY, 0)
    assert (net[2][1].out_features, net[2][1].bias, net[2][0].out_features) == (5, None, 8)


def test_a_network_without_a_head_gets_one_on_what_it_puts_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU())
    images = torch.randn(2, 3, 8, 8)
    maps = net(images)
    changed = scratch.with_head(net, 3, TINY, 0)
    head = changed.new_head.linear
    torch.testing.assert_close(changed(images), maps.mean((2, 3)) @ head.weight.T + head.bias)


def test_a_network_that_can_be_given_no_head_is_a_source_error():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 8), nn.Conv2d(3, 4, 8)

        def forward(self, x):
            return self.one(x).relu(), self.other(x).tanh()

    with pytest.raises(
        SourceError, match=r"returns several tensors, of which none lies deepest.*`reference='compact'`"
    ):
        scratch.with_head(Two(), 3, TINY, 0)


# --- a reference, from images to accuracy -------------------------------------------------------------------------


def run(target, samples, **options):
    probe = target.probe(samples)
    split = scratch.split_probe(target, probe, 0)
    return scratch.train_from_scratch(
        network(classes=len(target.classes)), TINY, probe, split,
        recipe=Recipe(**{"epochs": 8, "batch_size": 16, "shift": 0.0, **options}), seed=0, device=CPU,
    ), split  # fmt: skip


def test_a_reference_is_measured_on_its_held_out_images():
    target = pictures((60, 60, 60))
    result, split = run(target, 90)
    assert result.n_held_out == split.held_out.n_samples == 90
    assert result.figures["accuracy"] > 0.9
    assert result.record.epochs == 8


def test_a_reference_on_labels_that_mean_nothing_stays_near_chance():
    images = np.random.default_rng(1).integers(0, 256, (160, 8, 8, 3), dtype=np.uint8)
    result, _ = run(load_target((images, np.arange(160) % 2)), 80, epochs=4)
    assert 0.3 < result.figures["accuracy"] < 0.7


def test_a_reference_learns_from_all_images_that_are_not_held_out_and_keeps_the_last_weights():
    target = pictures((30, 30))
    probe = target.probe(60)
    split = scratch.split_probe(target, probe, 0)
    net, recipe = network(classes=2), Recipe(epochs=3, batch_size=16, patience=1)
    result = scratch.train_from_scratch(net, TINY, probe, split, recipe=recipe, seed=0, device=CPU)

    held_out = {split.held_out.image(i).tobytes() for i in range(split.held_out.n_samples)}
    left = [i for i in range(60) if probe.image(i).tobytes() not in held_out]
    same = network(classes=2)
    images = torch.stack([TINY(probe.image(i)) for i in left])
    fit(same, images, torch.from_numpy(probe.labels[left]), None, recipe=recipe, seed=0)
    assert (len(left), result.n_held_out) == (48, 12)
    assert result.record.images_seen == 3 * 48
    assert (result.record.best_epoch, result.record.stopped) == (3, "finished")
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_a_probe_of_few_images_gets_at_least_75_steps():
    target = pictures((26, 26))
    probe = target.probe(16)
    split = scratch.split_probe(target, probe, 0)
    recipe = replace(scratch.reference_recipe(), epochs=1)
    result = scratch.train_from_scratch(network(classes=2), TINY, probe, split, recipe=recipe, seed=0, device=CPU)
    # 16 images are four batches.
    assert (result.record.steps, result.record.epochs, result.record.stopped) == (76, 19, "finished")


def test_a_reference_is_trained_in_a_quarter_of_the_steps_of_scratch_in_measure():
    usual = recipes("sgd")["scratch"]
    expected = {**asdict(usual), "budget_s": 9.0, "optimiser": "muon", "epochs": usual.epochs // 4}
    assert asdict(scratch.reference_recipe(budget_s=9.0)) == {**expected, "min_steps": usual.min_steps // 4}
    # What is asked for is what is run.
    assert asdict(scratch.reference_recipe(7, 9.0)) == {**expected, "epochs": 7, "min_steps": 0}


def test_too_few_images_for_a_reference_are_an_input_error():
    with pytest.warns(TransferscopeWarning):
        target = pictures((1, 1))
    with pytest.raises(InputError, match="train a reference on and to measure it on, but got 2 and 0"):
        run(target, 2)
    one = scratch.Split(np.arange(1), target)
    with pytest.raises(InputError, match="but got 1 and 2; raise `samples`"):
        scratch.train_from_scratch(network(classes=2), TINY, target.probe(2), one, recipe=Recipe(), seed=0, device=CPU)


def broken_folder(root, broken):
    """Write 40 images of two classes, of which these held-out ones lose their pixels but not their header."""
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        folder = root / label
        folder.mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 100, (8, 8, 3)) + (155 if label == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    target = load_target(root)
    probe = target.probe(16)
    outside = np.setdiff1d(np.arange(40), probe.indices)
    for i in outside[:broken]:
        path = root / target.classes[target.labels[i]] / f"{i % 20:02}.png"
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    return target, probe


def test_broken_held_out_images_are_named_once_and_not_counted(tmp_path):
    target, probe = broken_folder(tmp_path / "data", broken=3)
    split = scratch.split_probe(target, probe, 0)
    assert split.held_out.n_samples == 24
    recipe = Recipe(epochs=2, batch_size=8)
    with pytest.warns(TransferscopeWarning, match="3 of 24 held-out images are left out") as caught:
        result = scratch.train_from_scratch(network(classes=2), TINY, probe, split, recipe=recipe, seed=0, device=CPU)
    assert result.n_held_out == 21
    assert len(caught) == 1
    assert len(re.findall(r"\d\d\.png", str(caught[0].message))) >= 3


def test_labels_stay_with_their_images_when_some_are_broken(tmp_path):
    target, probe = broken_folder(tmp_path / "data", broken=5)
    split = scratch.split_probe(target, probe, 0)
    with pytest.warns(TransferscopeWarning, match="5 of 24"):
        images, labels = scratch.load_images(split.held_out, TINY)
    assert images.shape == (19, 3, 8, 8)
    brightness = images.mean((1, 2, 3))
    assert torch.equal((brightness > 0).long(), labels)


def test_held_out_images_that_are_all_broken_are_an_input_error(tmp_path):
    target, probe = broken_folder(tmp_path / "data", broken=24)
    split = scratch.split_probe(target, probe, 0)
    with pytest.raises(InputError, match="all of them are broken"):
        scratch.load_images(split.held_out, TINY)


@pytest.mark.parametrize("stride", [1, 2])
def test_channels_last_but_not_where_torch_corrupts_memory(stride):
    # With several threads torch 2.15 crashes in the gradient of strided 1 x 1 convolutions in that format.
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )
    formats = set()
    net[0].register_forward_hook(
        lambda _module, images, _output: formats.add(images[0].is_contiguous(memory_format=torch.channels_last))
    )
    trained(net, n=12, epochs=1)
    assert formats == {stride == 1}
