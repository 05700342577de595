"""Signal and noise of gradients, similarity before and after, and the domain of images: against plain references."""

import copy
import math

import numpy as np
import pytest
import torch
from compact_networks import network
from torch import nn

from transferscope import similarity
from transferscope.activations.capture import collect
from transferscope.arrays.discrepancy import diversity, frechet_distance, maximum_mean_discrepancy
from transferscope.errors import CaptureError, InputError, SourceError, TransferscopeWarning
from transferscope.verbs.parameters import companions
from transferscope.verbs.parameters.companions import gradient_signal_to_noise, representation_similarity
from transferscope.verbs.parameters.domain import domain


def linear(features=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).double()
    with torch.no_grad():
        net[1].weight.copy_(torch.from_numpy(rng.normal(size=(classes, features))))
        net[1].bias.copy_(torch.from_numpy(rng.normal(size=classes)))
    return net


def data(n, features=5, classes=3, seed=1):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, features))), torch.from_numpy(np.arange(n) % classes)


def image_gradients(net, images, labels):
    """Gradients (n, classes, features + 1) of the cross-entropy of a linear network, by the formula (p - y) xᵀ."""
    x = np.column_stack([images.numpy(), np.ones(len(images))])
    weights = np.column_stack([net[1].weight.detach().numpy(), net[1].bias.detach().numpy()])
    exponentials = np.exp(x @ weights.T)
    error = exponentials / exponentials.sum(1, keepdims=True) - np.eye(len(weights))[labels]
    return error[:, :, None] * x[:, None, :]


def plain_ratio(gradients, batches, size):
    """The definition, from the gradients (n, n_parameters) of single images."""
    g = gradients[: size * batches].reshape(batches, size, -1).mean(1)
    variance = np.sum((g - g.mean(0)) ** 2) / (batches - 1)
    return (np.sum(g.mean(0) ** 2) - variance / batches) / (variance * size)


GROUPS = {"all": ["1.weight", "1.bias"], "bias": ["1.bias"], "weight": ["1.weight"]}


@pytest.mark.parametrize(
    ("n", "batches", "made", "size"),
    [
        (48, 8, 8, 6),
        (53, 8, 8, 6),
        (45, 8, 15, 3),
        (30, 3, 3, 9),
        (9, 8, 3, 3),
        (7, 8, 2, 3),
        (5, 8, 2, 2),
        (4, 2, 2, 2),
    ],
)
def test_it_is_the_definition_on_a_linear_network(n, batches, made, size, monkeypatch):
    monkeypatch.setattr(companions, "CHUNK", 4)
    net, (images, labels) = linear(), data(n)
    gradients = image_gradients(net, images, labels)
    found = gradient_signal_to_noise(net, images, labels, GROUPS, batches=batches)
    expected = {
        "all": plain_ratio(gradients, made, size),
        "bias": plain_ratio(gradients[:, :, -1], made, size),
        "weight": plain_ratio(gradients[:, :, :-1], made, size),
    }
    assert list(found) == list(GROUPS)
    assert found == pytest.approx(expected, rel=1e-9)


def test_signal_and_noise_are_unbiased():
    """Of many samples of images: E[signal] = ‖E g‖² and E[noise] = variance of a single image's gradient."""
    net = linear()
    population = data(100_000)
    true = image_gradients(net, *population).reshape(100_000, -1)
    rng = np.random.default_rng(2)
    labels = population[1].numpy()
    # Independent images, not class by class in turns: these would have less noise.
    ratios = []
    for _ in range(300):
        rows = rng.integers(100_000, size=32)
        found = gradient_signal_to_noise(
            net, population[0][rows], torch.from_numpy(labels[rows]), {"all": GROUPS["all"]}
        )
        ratios.append(found["all"])
    expected = np.sum(true.mean(0) ** 2) / np.sum(true.var(0))
    assert np.mean(ratios) == pytest.approx(expected, rel=0.15)
    assert np.std(ratios) / math.sqrt(300) < 0.05 * expected


@pytest.mark.parametrize("per_class", [2, 5, 12])
def test_classes_that_take_turns_do_not_count_as_noise(per_class):
    """However few the images: batches without some of the classes would differ by more than chance."""
    classes, rng = 10, np.random.default_rng(0)
    net, centers = linear(6, classes), 2 * rng.normal(size=(classes, 6))
    codes = np.tile(np.arange(classes), 2000)
    gradients = image_gradients(net, torch.from_numpy(centers[codes] + rng.normal(size=(20_000, 6))), codes)
    gradients = gradients.reshape(2000, classes, -1)
    expected = np.sum(gradients.mean((0, 1)) ** 2) / np.sum(gradients.var(0).mean(0))
    found = []
    for _ in range(200):
        labels = np.tile(np.arange(classes), per_class)
        images = torch.from_numpy(centers[labels] + rng.normal(size=(len(labels), 6)))
        found.append(gradient_signal_to_noise(net, images, torch.from_numpy(labels), GROUPS)["all"])
    assert np.mean(found) == pytest.approx(expected, rel=0.15)


def test_without_signal_it_is_negative_about_as_often_as_not():
    """At weights of zero with random labels the true gradient is zero."""
    net = linear()
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    draw = torch.Generator().manual_seed(0)
    found = [
        gradient_signal_to_noise(
            net, torch.randn(64, 5, generator=draw).double(), torch.randint(3, (64,), generator=draw), GROUPS
        )["weight"]
        for _ in range(200)
    ]
    assert 0.3 < np.mean(np.array(found) < 0) < 0.7
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200)


def test_it_does_not_depend_on_the_scale_of_the_gradient():
    net, (images, labels) = linear(), data(40)
    nn.init.zeros_(net[1].bias)
    expected = gradient_signal_to_noise(net, images, labels, {"weight": ["1.weight"]})
    with torch.no_grad():
        net[1].weight.div_(1000)
    assert gradient_signal_to_noise(net, images * 1000, labels, {"weight": ["1.weight"]}) == pytest.approx(expected)


def pictures(n=24, classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=draw), torch.arange(n) % classes


def test_a_network_is_left_as_it_was_and_its_batch_norms_keep_their_averages():
    net, (images, labels) = network(), pictures()
    groups = {"stem": ["stem.0.weight"], "head": ["head.weight"]}
    before = copy.deepcopy(net.state_dict())
    net.train()
    net.blocks[0].eval()
    modes = [module.training for module in net.modules()]
    found = gradient_signal_to_noise(net, images, labels, groups)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert gradient_signal_to_noise(net.eval(), images, labels, groups) == found  # bit by bit


def test_the_size_of_a_pass_does_not_matter(monkeypatch):
    net, (images, labels) = network().double(), pictures(90)
    images = images.double()
    expected = gradient_signal_to_noise(net, images, labels, {"stem": ["stem.0.weight"]}, batches=2)
    monkeypatch.setattr(companions, "CHUNK", 7)
    found = gradient_signal_to_noise(net, images, labels, {"stem": ["stem.0.weight"]}, batches=2)
    assert found == pytest.approx(expected, rel=1e-6)


def test_without_any_gradient_there_is_no_ratio_and_without_noise_it_is_infinite():
    net, (images, labels) = network(), pictures()
    nn.init.zeros_(net.head.weight)
    found = gradient_signal_to_noise(net, images, labels, {"stem": ["stem.0.weight"], "head": ["head.weight"]})
    assert math.isnan(found["stem"])
    assert math.isfinite(found["head"])
    same = images[:3].repeat(4, 1, 1, 1), labels[:3].repeat(4)
    assert gradient_signal_to_noise(net, *same, {"head": ["head.weight"]}, batches=4) == {"head": math.inf}


@pytest.mark.parametrize(("n", "m"), [(3, 3), (0, 0), (8, 7)])
def test_too_few_images_are_an_input_error(n, m):
    images, labels = pictures()
    with pytest.raises(InputError, match=f"at least 4 `images` and a label for each.* got {n} images and {m} labels"):
        gradient_signal_to_noise(network(), images[:n], labels[:m], {"head": ["head.weight"]})


def test_a_single_batch_is_an_input_error():
    with pytest.raises(InputError, match="Expected `batches` to be a whole number of at least 2, but got 1"):
        gradient_signal_to_noise(network(), *pictures(), {"head": ["head.weight"]}, batches=1)


@pytest.mark.parametrize("names", [[], ["stem.7"], ["head.weight", "stem.0.weight"]])
def test_layers_of_unknown_or_frozen_parameters_are_an_input_error(names):
    net = network()
    net.stem.requires_grad_(False)
    with pytest.raises(InputError, match="Expected layer 'first' to name trainable parameters of CompactResNet"):
        gradient_signal_to_noise(net, *pictures(), {"first": names})


def test_gradients_that_are_not_finite_are_a_source_error_and_the_mode_is_restored():
    images, labels = pictures()
    images[0] = math.nan
    net = network().train()
    with pytest.raises(SourceError, match="Expected finite gradients of CompactResNet, but those of layer 'head'"):
        gradient_signal_to_noise(net, images, labels, {"head": ["head.weight"]})
    assert net.training


# --- similarity ---------------------------------------------------------------------------------------------------

LAYERS = ["blocks.2", "stem", "blocks.5"]


def test_a_network_is_similar_to_itself_and_to_its_copy():
    net = network()
    for after in (net, copy.deepcopy(net)):
        found = representation_similarity(net, after, LAYERS, pictures()[0], batch_size=8, device="cpu")
        assert list(found) == LAYERS
        assert found == pytest.approx(dict.fromkeys(LAYERS, 1.0), abs=1e-6)


def test_in_one_batch_it_is_the_debiased_cka_of_the_activations():
    before, after, images = network(), network(1, classes=5), pictures()[0]
    found = representation_similarity(before, after, LAYERS, images, batch_size=24, device="cpu")
    x, y = (collect(net, [images], LAYERS, reduce="flatten") for net in (before, after))
    assert found == pytest.approx(
        {layer: similarity.linear_cka(x[layer], y[layer], debiased=True) for layer in LAYERS}, rel=1e-4
    )
    assert found["stem"] < 0.999


def test_networks_keep_their_modes():
    before, after = network().train(), network(1).eval()
    after.blocks[1].train()
    modes = [[module.training for module in net.modules()] for net in (before, after)]
    representation_similarity(before, after, LAYERS, pictures()[0], batch_size=8, device="cpu")
    assert [[module.training for module in net.modules()] for net in (before, after)] == modes


class Repeating(nn.Module):
    """Runs one layer twice and another never."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.flat, self.twice, self.never = nn.Flatten(), nn.Linear(192, 192), nn.Linear(2, 2)

    def forward(self, x):
        return self.twice(self.twice(self.flat(x)).relu())


def test_layers_without_activations_are_nan_and_several_calls_are_averaged():
    before, after, images = Repeating(), Repeating(1), pictures()[0]
    names = ["early layers", "twice", "never"]
    found = representation_similarity(before, after, names, images, batch_size=24, device="cpu")
    assert list(found) == names
    assert math.isnan(found["early layers"])
    assert math.isnan(found["never"])
    x, y = (collect(net, [images], ["twice"], reduce="flatten") for net in (before, after))
    calls = [similarity.linear_cka(x[call], y[call], debiased=True) for call in ("twice", "twice:2")]
    assert found["twice"] == pytest.approx(np.mean(calls), rel=1e-4)
    assert found["twice"] != pytest.approx(calls[0], rel=1e-3)
    none = representation_similarity(before, after, ["never", "early"], images, batch_size=8, device="cpu")
    assert all(map(math.isnan, none.values()))


def test_a_dead_layer_is_nan_with_a_warning_and_a_broken_one_an_error():
    before, after, images = network(), network(), pictures()[0]
    nn.init.zeros_(after.stem[0].weight)
    with pytest.warns(TransferscopeWarning, match="NaN"):
        found = representation_similarity(before, after, ["stem"], images, batch_size=8, device="cpu")
    assert math.isnan(found["stem"])
    nn.init.constant_(after.stem[0].weight, math.nan)
    with pytest.raises(CaptureError, match=r"layer 'stem\.0' is NaN"):
        representation_similarity(before, after, ["stem"], images, batch_size=8, device="cpu")


def test_three_images_are_too_few():
    with pytest.raises(InputError, match="at least 4 images, but got 3"):
        representation_similarity(network(), network(), LAYERS, pictures(3)[0], batch_size=8, device="cpu")


# --- the domain ---------------------------------------------------------------------------------------------------


def features(n=30, p=6, *, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, p)) + shift


def test_the_domain_is_measured_on_features_of_length_one(xp):
    source, target, labels = features(), features(20, shift=0.5, seed=1), np.arange(20) % 4
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (source, target)]
    expected = (frechet_distance(*unit), maximum_mean_discrepancy(*unit), *diversity(unit[1], labels))
    found = domain(xp.asarray(source), xp.asarray(target), labels)
    assert found == pytest.approx(expected, rel=1e-9)
    scales = np.geomspace(1e-48, 1e48, 20)[:, None]
    assert domain(xp.asarray(source), xp.asarray(target * scales), labels) == pytest.approx(expected, rel=1e-9)


def test_without_source_images_there_is_diversity_alone(xp):
    target, labels = features(), np.arange(30) % 3
    found = domain(None, xp.asarray(target), labels)
    assert math.isnan(found.frechet)
    assert math.isnan(found.mmd)
    assert found[2:] == domain(xp.asarray(features()), xp.asarray(target), labels)[2:]
    assert 0 < found.within + found.between <= 1


def test_features_of_zeros_stay_zeros():
    target = np.array([[3.0, 4.0], [0.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    found = domain(None, target, [0, 1, 0, 1])
    assert found[2:] == pytest.approx((0.0, 0.25))


def test_features_that_have_collapsed_have_no_median_distance():
    found = domain(np.ones((8, 3)), np.ones((8, 3)), [0, 1] * 4)
    assert found.frechet == pytest.approx(0)
    assert math.isnan(found.mmd)
    assert found.within == pytest.approx(0)


def test_features_that_do_not_fit_are_an_input_error():
    with pytest.raises(InputError, match=r"same n_features but got \(30, 6\) and \(30, 5\)"):
        domain(features(), features(p=5), np.zeros(30, int))
    with pytest.raises(InputError, match=r"Expected `target_features` .* finite values"):
        domain(None, np.full((4, 2), np.nan), [0, 1, 0, 1])
