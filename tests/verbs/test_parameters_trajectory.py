"""Distances along a fine-tuning: against training by hand, and without changing the training."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.protocols.training import loop
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.runtime.store import Store
from transferscope.verbs.parameters import trajectory
from transferscope.verbs.parameters.trajectory import Trajectory, follow


class Noisy(nn.Sequential):
    """Convolutions, batch norm, dropout, and noise in evaluation mode too."""

    def __init__(self):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            super().__init__(
                nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Dropout(0.3),
                nn.Linear(80, 3),
            )  # fmt: skip

    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


NAMES = ("0.weight", "3.weight")


def noise(n, size=8):
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % 3
    images = torch.randn(n, 3, size, size, generator=draw)
    images[torch.arange(n), labels] += 1.0
    return images, labels


def redrawn(seed, net=None):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=draw) for name, value in (net or Noisy()).named_parameters()}


def followed(net=None, n=24, names=NAMES, initials=None, classes=3, **options):
    net = Noisy() if net is None else net
    recipe = Recipe(**{"epochs": 3, "batch_size": 6, **options})
    initials = [redrawn(7)] if initials is None else initials
    return follow(net, initials, *noise(n), classes=classes, names=names, recipe=recipe, seed=5)


@pytest.mark.parametrize(("schedule", "rates"), [("cosine", [1.0, 0.5]), ("constant", [1.0, 1.0])])
def test_two_steps_of_a_linear_network_are_those_made_by_hand(schedule, rates):
    """Two images are one batch, so that an epoch is one step of gradient descent on both."""
    draw = np.random.default_rng(0)
    images, labels = draw.normal(size=(2, 3, 2, 2)), np.array([1, 0])
    rows, onehot = images.reshape(2, 12), np.eye(3)[labels]
    source, bias, initials = draw.normal(size=(3, 12)), draw.normal(size=3), draw.normal(size=(2, 3, 12))
    rate, momentum, decay = 0.1, 0.8, 0.05

    weights, offsets = source.copy(), bias.copy()
    buffers = [np.zeros((3, 12)), np.zeros(3)]
    points, losses = [source.copy()], []
    for share in [*rates, None]:
        logits = rows @ weights.T + offsets
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(chances[[0, 1], labels]).mean() / np.log(3))
        if share is None:
            break
        error = (chances - onehot) / 2
        gradients = [error.T @ rows + decay * weights, error.sum(0) + decay * offsets]
        for tensor, buffer, gradient in zip((weights, offsets), buffers, gradients, strict=True):
            buffer[:] = momentum * buffer + gradient
            tensor -= rate * share * (gradient + momentum * buffer)
        points.append(weights.copy())

    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    net.load_state_dict({"1.weight": torch.from_numpy(source), "1.bias": torch.from_numpy(bias)})
    recipe = Recipe(epochs=2, learning_rate=rate, momentum=momentum, weight_decay=decay, shift=0.0, schedule=schedule)
    found = follow(
        net, [{"1.weight": torch.from_numpy(each)} for each in initials],
        torch.from_numpy(images), torch.from_numpy(labels), classes=3, names=["1.weight"], recipe=recipe, seed=0,
    )  # fmt: skip
    assert found.names == ("1.weight",)
    assert (found.steps.tolist(), found.steps_per_epoch) == ([0, 1, 2], 1)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-10)
    expected = [[[np.abs(point - each).mean()] for point in points] for each in initials]
    np.testing.assert_allclose(found.to_initial, expected, rtol=1e-10)
    np.testing.assert_allclose(found.to_source, [[np.abs(point - source).mean()] for point in points], rtol=1e-10)
    np.testing.assert_allclose(found.change, [[np.linalg.norm(point - source)] for point in points], rtol=1e-10)
    np.testing.assert_allclose(found.norm, [np.linalg.norm(source)], rtol=1e-12)


def test_recording_changes_neither_the_training_nor_the_global_random_state():
    plain, net = Noisy(), Noisy()
    recipe = Recipe(epochs=3, batch_size=6)
    fit(plain, *noise(24), None, recipe=recipe, seed=5)
    torch.manual_seed(3)
    before, epochs = torch.random.get_rng_state(), []
    first = follow(
        net, [redrawn(7)], *noise(24), classes=3, names=NAMES, recipe=recipe, seed=5,
        on_epoch=lambda done, total: epochs.append((done, total)),
    )  # fmt: skip
    assert torch.equal(torch.random.get_rng_state(), before)
    assert epochs == [(1, 3), (2, 3), (3, 3)]
    for name, value in net.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    assert not any(module.training for module in net.modules())
    torch.manual_seed(4)
    for name, array in followed().arrays().items():
        np.testing.assert_array_equal(array, first.arrays()[name], err_msg=name)


def test_distances_at_the_end_are_those_of_the_weights_whatever_their_layout_and_type():
    net, source = Noisy(), Noisy().state_dict()
    layouts = set()
    net[3].register_forward_hook(
        lambda module, *_: layouts.add(module.weight.is_contiguous(memory_format=torch.channels_last))
    )
    coarse = {name: value.to(torch.bfloat16) for name, value in redrawn(8).items()}
    strided = {name: redrawn(7)[name].to(memory_format=torch.channels_last) for name in NAMES}
    found = followed(net, initials=[strided, coarse])
    assert layouts == {False, True}, "it is trained channels last, and not before"
    for i, name in enumerate(NAMES):
        last, first = net.state_dict()[name].double().numpy(), source[name].double().numpy()
        for draw, initial in enumerate((redrawn(7), coarse)):
            values = initial[name].double().numpy()
            assert found.to_initial[draw, 0, i] == pytest.approx(np.abs(first - values).mean(), rel=1e-12)
            assert found.to_initial[draw, -1, i] == pytest.approx(np.abs(last - values).mean(), rel=1e-12)
        assert found.to_source[-1, i] == pytest.approx(np.abs(last - first).mean(), rel=1e-12)
        assert found.change[-1, i] == pytest.approx(np.linalg.norm(last - first), rel=1e-12)
        assert found.norm[i] == pytest.approx(np.linalg.norm(first), rel=1e-12)
    assert not found.to_source[0].any()
    assert (found.to_source[1:] > 0).all()
    assert found.to_initial.shape == (2, len(found.steps), 2)
    assert {array.dtype for name, array in found.arrays().items() if name != "steps"} == {np.dtype(float)}


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        (9, [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 36]),
        (8, [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32]),
        (1, [0, 1, 2, 3, 4]),
    ],
)
def test_two_points_an_octave_are_recorded_and_the_last(epochs, steps):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    found = followed(net, names=["1.weight"], initials=[redrawn(0, net)], epochs=epochs)
    assert found.steps.tolist() == steps
    assert found.steps.dtype == np.int64
    assert found.steps_per_epoch == 4
    assert len(found.loss) == len(steps)


def test_the_loss_is_that_of_the_first_images_and_guessing_has_one(monkeypatch):
    monkeypatch.setattr(trajectory, "LOSS_IMAGES", 6)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    for parameter in net[2].parameters():
        nn.init.zeros_(parameter)
    found = followed(net, names=["0.weight"], initials=[redrawn(0, net)], classes=5)
    assert found.loss[0] == pytest.approx(1.0)
    images, labels = noise(24)
    with torch.no_grad():
        chances = torch.softmax(net(images[:6]).double(), 1).numpy()
    expected = -np.log(chances[np.arange(6), labels[:6].numpy()]).mean() / math.log(5)
    assert found.loss[-1] == pytest.approx(expected, rel=1e-6)


def test_the_cache_gives_back_what_was_put_in(tmp_path):
    found = followed(initials=[redrawn(7), redrawn(8)])
    store = Store(tmp_path)
    store.put("parameters", "ab" * 32, found.arrays(), {"steps_per_epoch": found.steps_per_epoch})
    arrays, record = store.get("parameters", "ab" * 32)
    again = Trajectory.from_arrays(list(found.names), record["steps_per_epoch"], arrays)
    assert (again.names, again.steps_per_epoch) == (found.names, found.steps_per_epoch)
    for name, array in found.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype


def test_a_budget_that_runs_out_ends_the_trajectory_there(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    net = Noisy()
    net.register_forward_hook(lambda *_: clock.__setitem__(0, clock[0] + 1.0))
    with pytest.warns(TransferscopeWarning, match=r"stopped after 5 of 12 steps, when its 4.5 s were over"):
        found = followed(net, budget_s=4.5)
    assert found.steps.tolist() == [0, 1, 2, 3, 4, 5]
    last = np.abs(net.state_dict()["0.weight"].numpy() - Noisy().state_dict()["0.weight"].numpy()).mean()
    assert found.to_source[-1, 0] == pytest.approx(last, rel=1e-6)


def test_training_that_diverges_is_a_source_error():
    with pytest.raises(SourceError, match=r"diverged.*lower the learning rate"):
        followed(learning_rate=1e30)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    # Only the loss after the last step shows it.
    with pytest.raises(SourceError, match=r"training loss after 1 steps is (nan|inf): training diverged"):
        followed(net, n=2, names=["1.weight"], initials=[redrawn(0, net)], epochs=1, learning_rate=1e38)


def test_images_and_labels_that_differ_in_number_are_an_input_error():
    images, labels = noise(8)
    with pytest.raises(InputError, match="got 8 images and 7 labels"):
        follow(Noisy(), [redrawn(7)], images, labels[:7], classes=3, names=NAMES, recipe=Recipe(), seed=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": ["0.weight", "9.weight"]}, InputError, r"weights of Noisy, but it has no \['9.weight'\]"),
        ({"names": []}, InputError, "at least one name and one draw of the initial weights, but got 0 and 1"),
        ({"initials": []}, InputError, "at least one name and one draw of the initial weights, but got 2 and 0"),
        ({"classes": 1}, InputError, "`classes` to be a whole number of at least 2, but got 1"),
        ({"n": 0}, InputError, "at least one image, but got 0 images and 0 labels"),
        ({"initials": [redrawn(7), {"0.weight": redrawn(7)["0.weight"]}]}, SourceError, "to hold '3.weight'"),
        (
            {"initials": [redrawn(7) | {"3.weight": torch.zeros(5, 4, 1, 1)}]},
            SourceError,
            r"'3.weight' to have shape \(5, 4, 3, 3\), as in the source, but got \(5, 4, 1, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(options, error, message):
    net = Noisy()
    with pytest.raises(error, match=message):
        followed(net, **options)
    assert all(torch.equal(value, Noisy().state_dict()[name]) for name, value in net.state_dict().items())
