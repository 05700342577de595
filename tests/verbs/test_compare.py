"""Two networks on the same images: every value against plain formulas, and the ways to get the images wrong."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from wrappers import WRAPPERS

import transferscope as ts
from transferscope import similarity
from transferscope.activations.kept import KeptFeatures
from transferscope.arrays import linalg
from transferscope.data.images import Transform
from transferscope.errors import CaptureError, InputError, TransferscopeWarning
from transferscope.similarity.uncertainty import measure_cells, representations
from transferscope.verbs.compare.networks import compare_by
from transferscope.verbs.compare.options import Options

LAYERS_X, LAYERS_Y = ["1", "2", "4"], ["1", "3"]


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return build()


@pytest.fixture
def net_x():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(80, 6)
        ).double()
    )


@pytest.fixture
def net_y():
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 3, 2)).double()
    )


@pytest.fixture
def images():
    return torch.randn(33, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def activations(net, layers, images):
    """Outputs of the children of a Sequential with these names, flattened, by running its prefixes."""
    with torch.no_grad():
        net.eval()
        return [net[: int(layer) + 1](images.clone()).flatten(1).numpy() for layer in layers]


def unbiased_hsic(K, L):
    """Song et al. (2012), as printed: K and L without their diagonals."""
    n = len(K)
    K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
    ones = np.ones(n)
    total = np.trace(K @ L) + (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * ones @ K @ L @ ones) / (n * (n - 3))


def plain(x, y, batches):
    """Debiased CKA of all pairs, HSIC summed over batches with weights n_b (n_b - 3) and divided once."""
    result = np.empty((len(x), len(y)))
    for i, X in enumerate(x):
        for j, Y in enumerate(y):
            sums = np.zeros(3)
            for rows in batches:
                K, L = X[rows] @ X[rows].T, Y[rows] @ Y[rows].T
                n = len(K)
                hsic = unbiased_hsic(K, L), unbiased_hsic(K, K), unbiased_hsic(L, L)
                sums += n * (n - 3) * np.array(hsic)
            result[i, j] = sums[0] / np.sqrt(sums[1] * sums[2])
    return result


def both(net_x, net_y, images, **options):
    return ts.compare(net_x, net_y, images, layers_x=LAYERS_X, layers_y=LAYERS_Y, device="cpu", **options)


def expected(net_x, net_y, images, batches):
    return plain(activations(net_x, LAYERS_X, images), activations(net_y, LAYERS_Y, images), batches)


# --- values -------------------------------------------------------------------------------------------------------


def test_one_batch_of_all_images_is_debiased_cka(net_x, net_y, images):
    result = both(net_x, net_y, images, batch_size=64)
    np.testing.assert_allclose(result, expected(net_x, net_y, images, [slice(None)]), atol=1e-10)
    assert result.dims == ("layer_x", "layer_y")
    assert result["layer_x"].to_numpy().tolist() == LAYERS_X
    assert result["layer_y"].to_numpy().tolist() == LAYERS_Y
    assert result.dtype == np.float64
    assert (result.attrs["measure"], result.attrs["n_samples"]) == ("linear_cka", 33)


def test_batches_are_weighted_sums_divided_once(net_x, net_y, images):
    result = both(net_x, net_y, images, batch_size=12)
    batches = [slice(0, 12), slice(12, 24), slice(24, 33)]
    np.testing.assert_allclose(result, expected(net_x, net_y, images, batches), atol=1e-10)


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_trap_4_a_short_tail_joins_the_batch_before_it(net_x, net_y, images, tail):
    images = images[: 16 + tail]
    batches = [slice(0, 8), slice(8, 16 + tail)]
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images))), batch_size=8)
    for given in (images, loader):
        result = both(net_x, net_y, given, batch_size=8)
        np.testing.assert_allclose(result, expected(net_x, net_y, images, batches), atol=1e-10)
        assert result.attrs["n_samples"] == 16 + tail


@pytest.mark.parametrize("size", [1, 2, 3])
def test_trap_4_small_batches_of_a_loader_are_joined(net_x, net_y, images, size):
    seen = []
    net_x.register_forward_hook(lambda _net, args, _out: seen.append(len(args[0])))
    result = both(net_x, net_y, DataLoader(images[:15], batch_size=size))
    del seen[:5]  # the layers are looked up in two passes, and whether the same numbers come again in three
    assert sum(seen) == 15
    assert all(4 <= n < 10 for n in seen)
    edges = np.cumsum([0, *seen])
    batches = [slice(a, b) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(result, expected(net_x, net_y, images[:15], batches), atol=1e-10)


def test_trap_3_a_shuffled_loader_gives_both_networks_the_same_images(net_x, images):
    """Two differently shuffled passes would give a diagonal near 0."""
    twin = copy.deepcopy(net_x)
    loader = DataLoader(TensorDataset(images), batch_size=11, shuffle=True)
    result = ts.compare(net_x, twin, loader, layers_x=LAYERS_X, layers_y=LAYERS_X, device="cpu")
    np.testing.assert_allclose(np.diag(result), 1, atol=1e-10)


def test_trap_1_a_network_that_starts_in_place_does_not_change_the_images(net_y, images):
    net_x = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3).double())
    before = images.clone()
    result = ts.compare(net_x, net_y, images, layers_x="0", layers_y="1", device="cpu")
    want = plain(activations(net_x, ["0"], before), activations(net_y, ["1"], before), [slice(None)])
    np.testing.assert_allclose(result, want, atol=1e-10)
    assert torch.equal(images, before)


def test_a_network_with_itself_is_symmetric_with_ones_and_runs_once(net_x, images):
    calls = []
    net_x.register_forward_hook(lambda *_: calls.append(1))
    result = ts.compare(net_x, net_x, images, batch_size=11, device="cpu").to_numpy()
    assert len(calls) == 2 + 3 + 3  # the layers are looked up, the same numbers come again, one pass per batch
    np.testing.assert_allclose(np.diag(result), 1, atol=1e-12)
    np.testing.assert_allclose(result, result.T, atol=1e-12)
    assert (result <= 1 + 1e-12).all()


def test_networks_that_share_modules_are_kept_apart(net_x, images):
    stem = net_x[:3]
    result = ts.compare(net_x, stem, images, layers_x=LAYERS_X, layers_y=["1", "2"], batch_size=64, device="cpu")
    want = plain(activations(net_x, LAYERS_X, images), activations(stem, ["1", "2"], images), [slice(None)])
    np.testing.assert_allclose(result, want, atol=1e-10)


def test_svcca_is_that_of_all_images_at_once(net_x, net_y, images):
    options = {"measure": "svcca", "reduce": "mean"}
    result = both(net_x, net_y, images, batch_size=8, **options)

    def means(net, layers):
        with torch.no_grad():
            outputs = [net.eval()[: int(layer) + 1](images.clone()) for layer in layers]
        return [(out if out.ndim == 2 else out.mean((2, 3))).numpy() for out in outputs]

    want = [[similarity.svcca(X, Y) for Y in means(net_y, LAYERS_Y)] for X in means(net_x, LAYERS_X)]
    np.testing.assert_allclose(result, want, atol=1e-10)
    assert result.attrs["measure"] == "svcca"


def reported(net_x, net_y, images, measures, **options):
    seen = []
    asked = Options(measures=measures, layers_x=LAYERS_X, layers_y=LAYERS_Y, device="cpu", **options)
    compare_by(net_x, net_y, images, asked, report=lambda done, total: seen.append((done, total)))
    return list(dict.fromkeys(seen))


# What is derived from each layer, and then the pairs that are not all compared by one product of matrices.
COUNTED = dict.fromkeys(similarity.MEASURES, len(LAYERS_X) + len(LAYERS_Y))
COUNTED |= {name: COUNTED[name] + len(LAYERS_X) * len(LAYERS_Y) for name in ("cca", "svcca", "procrustes")}
COUNTED |= {"pwcca": COUNTED["pwcca"] + len(LAYERS_X)}


@pytest.mark.filterwarnings("ignore:.* is not informative for")  # more directions than images
def test_the_work_of_every_measure_is_counted(net_x, net_y, images):
    seen = reported(net_x, net_y, images, [*similarity.MEASURES], estimator="exact")
    for name, total in COUNTED.items():
        expected = [(done, total) for done in range(name == "linear_cka", total + 1)]
        assert set(expected) <= set(seen), name
    assert set(seen) <= {(done, total) for total in COUNTED.values() for done in range(total + 1)}


def test_all_rounds_are_counted(net_x, net_y):
    images = torch.randn(50, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = reported(
        net_x, net_y, images, ["procrustes", "mutual_knn"], batch_size=32, standard_error=True, permutations=3
    )
    # Once, without each of 20 groups, and permuted three times.
    totals = [24 * COUNTED[name] for name in ("procrustes", "mutual_knn")]
    assert seen == [(done, total) for total in totals for done in range(total + 1)]


def test_svcca_of_more_directions_than_images_warns(net_x, net_y, images):
    with pytest.warns(TransferscopeWarning, match="more samples"):
        both(net_x, net_y, images, measure="svcca", reduce="flatten")


@pytest.mark.parametrize("measure", ["linear_cka", "svcca"])
def test_tensor_dataset_list_and_loader_agree(net_x, net_y, images, measure):
    options = {"measure": measure, "reduce": "mean", "batch_size": 10}
    labelled = TensorDataset(images, torch.arange(len(images)))
    reference = both(net_x, net_y, images, **options)
    for given in (labelled, list(images), DataLoader(images, batch_size=10), DataLoader(labelled, batch_size=10)):
        np.testing.assert_allclose(both(net_x, net_y, given, **options), reference, atol=1e-12)


# --- layers and modes ---------------------------------------------------------------------------------------------


def test_layers_may_be_globs_in_firing_order(net_x, net_y, images):
    result = ts.compare(net_x, net_y, images, layers_x="*", layers_y=["3", "0"], device="cpu")
    assert result["layer_x"].to_numpy().tolist() == ["0", "1", "2", "3", "4"]
    assert result["layer_y"].to_numpy().tolist() == ["0", "3"]
    with pytest.raises(CaptureError, match="No layer of Sequential matches 'nowhere'"):
        ts.compare(net_x, net_y, images, layers_y="nowhere", device="cpu")


def test_networks_are_left_in_their_modes_without_hooks(net_x, net_y, images):
    net_x.train()
    net_y.train()
    net_y[1].eval()
    modes = [module.training for net in (net_x, net_y) for module in net.modules()]
    statistics = net_y[1].running_mean.clone()
    both(net_x, net_y, images)
    with pytest.raises(InputError):
        both(net_x, net_y, images[:3])
    assert [module.training for net in (net_x, net_y) for module in net.modules()] == modes
    assert not any(module._forward_hooks for net in (net_x, net_y) for module in net.modules())
    assert torch.equal(net_y[1].running_mean, statistics)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


# --- what cannot be compared --------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["linear_cka", "svcca"])
def test_nan_activations_name_the_layer(net_x, net_y, images, measure):
    with torch.no_grad():
        net_y[3].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CaptureError, match="layer '3' is NaN or infinite"):
        both(net_x, net_y, images, measure=measure)


@pytest.mark.parametrize("measure", ["cka", "", None])
def test_an_unknown_measure_is_an_input_error(net_x, net_y, images, measure):
    with pytest.raises(InputError, match="`measure` to be one of linear_cka, rbf_cka"):
        both(net_x, net_y, images, measure=measure)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_changes_nothing(net_x, net_y, images, wrap, one_process):
    plain = ts.compare(net_x, net_y, images, device="cpu")
    wrapped = ts.compare(WRAPPERS[wrap](net_x), net_y, images, device="cpu")
    xr.testing.assert_identical(wrapped, plain)


@pytest.mark.parametrize("batch_size", [3, 0, -1])
def test_a_batch_size_below_four_is_an_input_error(net_x, net_y, images, batch_size):
    with pytest.raises(InputError, match="`batch_size` to be a whole number of at least 4"):
        both(net_x, net_y, images, batch_size=batch_size)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("kind", [lambda i: i, TensorDataset, lambda i: DataLoader(TensorDataset(i), batch_size=2)])
@pytest.mark.parametrize("measure", ["linear_cka", "svcca"])
def test_fewer_than_four_images_are_an_input_error(net_x, net_y, images, count, kind, measure):
    with pytest.raises(InputError, match=f"at least 4 images, but got {count}"):
        both(net_x, net_y, kind(images[:count]), measure=measure)


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(9, 8, 8), r"got torch.float32 of shape \(9, 8, 8\)"),
        (torch.zeros(9, 3, 8, 8, dtype=torch.uint8), r"got torch.uint8 of shape \(9, 3, 8, 8\)"),
        (TensorDataset(torch.zeros(9, 8)), r"got torch.float32 of shape \(9, 8\)"),
        (DataLoader(torch.zeros(9, 3, 8), batch_size=4), r"got torch.float32 of shape \(4, 3, 8\)"),
        (np.zeros((9, 3, 8, 8)), "to give tensors, alone, first in a tuple or in a dict, but got ndarray"),
        ([("image", 0)] * 5, "to give tensors, alone, first in a tuple or in a dict, but got str"),
        (Endless(), "Dataset with a length, but got Endless; put an iterable dataset into a DataLoader"),
        (None, "to be a tensor, a DataLoader, a target or a Dataset with a length, but got NoneType"),
    ],
)
def test_images_of_another_kind_are_an_input_error(net_x, net_y, wrong, message):
    with pytest.raises(InputError, match=message):
        both(net_x, net_y, wrong)


def test_an_iterable_dataset_in_a_loader_is_fine(net_x, net_y, images):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from images

    result = both(net_x, net_y, DataLoader(Stream(), batch_size=8))
    np.testing.assert_allclose(result, both(net_x, net_y, images, batch_size=8), atol=1e-12)


def test_the_images_of_a_target_are_prepared_by_the_transform(net_x, net_y):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 12, 3), dtype=np.uint8)
    target = ts.load_target((pixels, [0, 1] * 4))
    transform = Transform(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    prepared = torch.stack([transform(target.image(i)) for i in range(8)])
    net_x, net_y = net_x.float(), net_y.float()
    result = both(net_x, net_y, target, transform=transform)
    np.testing.assert_array_equal(result, both(net_x, net_y, prepared))


# --- all images at once -------------------------------------------------------------------------------------------


def test_the_exact_estimator_does_not_depend_on_batches(net_x, net_y, images):
    want = expected(net_x, net_y, images, [slice(None)])
    for batch_size in (4, 10, 64):
        result = both(net_x, net_y, images, estimator="exact", batch_size=batch_size)
        np.testing.assert_allclose(result, want, atol=1e-10)
    assert result.attrs["estimator"] == "exact"


@pytest.mark.parametrize("measure", sorted(similarity.MEASURES))
@pytest.mark.parametrize("standardize", [False, True])
def test_features_that_went_to_disk_give_the_same(net_x, net_y, images, monkeypatch, measure, standardize):
    options = {"measure": measure, "estimator": "exact", "standardize": standardize, "batch_size": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # SVCCA has too few images here, which is all the same
        want = both(net_x, net_y, images, **options)
        monkeypatch.setattr("transferscope.activations.kept.BUDGET", 1000)
        found = both(net_x, net_y, images, **options)
    np.testing.assert_allclose(found, want, atol=1e-9)


@pytest.mark.parametrize("measure", sorted(similarity.MEASURES))
def test_every_measure_is_its_array_function_on_the_features(net_x, net_y, images, measure):
    function = {
        "linear_cka": lambda X, Y: similarity.linear_cka(X, Y, debiased=True),
        "rbf_cka": lambda X, Y: similarity.rbf_cka(X, Y, debiased=True),
    }.get(measure, getattr(similarity, measure))
    result = both(net_x, net_y, images, measure=measure, reduce="mean", batch_size=64)

    def means(net, layers):
        with torch.no_grad():
            outputs = [net.eval()[: int(layer) + 1](images.clone()) for layer in layers]
        return [(out if out.ndim == 2 else out.mean((2, 3))).numpy() for out in outputs]

    want = [[function(X, Y) for Y in means(net_y, LAYERS_Y)] for X in means(net_x, LAYERS_X)]
    np.testing.assert_allclose(result, want, atol=1e-9)
    assert bool(result["informative"].all())


def test_several_measures_take_one_pass(net_x, net_y, images):
    calls = []
    net_x.register_forward_hook(lambda *_: calls.append(1))
    options = {"layers_x": LAYERS_X, "layers_y": LAYERS_Y, "reduce": "mean", "batch_size": 11, "device": "cpu"}
    measures = ["linear_cka", "procrustes", "rsa"]
    together = compare_by(net_x, net_y, images, Options(measures=measures, **options))
    assert len(calls) == 2 + 3 + 3  # the layers are looked up, the same numbers come again, one pass per batch
    for measure, result in together.items():
        np.testing.assert_allclose(result, ts.compare(net_x, net_y, images, measure=measure, **options), atol=1e-10)


def test_standardised_features_forget_their_units(net_x, net_y, images):
    """Every feature in units of its own: only without standardising does that change anything."""
    scaled = copy.deepcopy(net_y)
    scaled[3].weight.data *= torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
    scaled[3].bias.data *= torch.tensor([1.0, 10.0, 100.0])
    for estimator in ("minibatch", "exact"):
        options = {"layers_x": "4", "layers_y": "3", "estimator": estimator, "device": "cpu", "batch_size": 16}
        plain_one, plain_other = (ts.compare(net_x, y, images, **options) for y in (net_y, scaled))
        assert abs(float(plain_one[0, 0]) - float(plain_other[0, 0])) > 0.01
        one, other = (ts.compare(net_x, y, images, standardize=True, **options) for y in (net_y, scaled))
        np.testing.assert_allclose(one, other, atol=1e-10)


# --- what is known of a cell --------------------------------------------------------------------------------------


def test_linear_cka_comes_with_its_standard_error(net_x, net_y, images):
    result = both(net_x, net_y, images, batch_size=64)
    x, y = activations(net_x, LAYERS_X, images), activations(net_y, LAYERS_Y, images)
    left_out = []
    for i in range(len(images)):
        rows = np.arange(len(images)) != i
        left_out.append(plain([X[rows] for X in x], [Y[rows] for Y in y], [slice(None)]))
    jackknife = np.sqrt(32 / 33 * np.sum((left_out - np.mean(left_out, axis=0)) ** 2, axis=0))
    # Of the same size: with 33 images the linear estimate is not closer.
    np.testing.assert_allclose(result["standard_error"], jackknife, rtol=0.4)
    assert "p_value" not in result.coords


def test_the_jackknife_of_other_measures_is_of_the_size_of_the_exact_one(net_x, net_y):
    """Linear CKA, of which the standard error is known in closed form, as if it were any other measure."""
    images = torch.randn(120, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = activations(net_x, LAYERS_X, images), activations(net_y, LAYERS_Y, images)
    cka = similarity.MinibatchCKA()
    cka.update(x, y)
    layers = ([similarity.Representation(X) for X in side] for side in (x, y))
    cells = measure_cells("linear_cka", *layers, standard_error=True, permutations=0, seed=0)
    # Twenty groups tell a standard error to within a sixth, one deviation.
    np.testing.assert_allclose(cells.standard_error, cka.standard_error(), rtol=0.5)


@pytest.mark.filterwarnings("ignore:.*depends on the other images of the batch")  # noise does
@pytest.mark.parametrize("measure", ["linear_cka", "svcca", "information_imbalance"])
@pytest.mark.parametrize("estimator", ["minibatch", "exact"])
def test_permutations_tell_a_network_from_noise(net_x, images, measure, estimator):
    options = {"measure": measure, "reduce": "mean", "permutations": 99, "batch_size": 16, "estimator": estimator}
    options |= {"layers_x": "0", "layers_y": ["0", "2"], "device": "cpu"}
    noise = seeded(lambda: nn.Sequential(Noise(), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)).double())
    related = ts.compare(net_x, net_x, images, **options)
    unrelated = ts.compare(net_x, noise, images, **options)
    np.testing.assert_allclose(related["p_value"][0, 0], 1 / 100)
    assert float(unrelated["p_value"].min()) > 1 / 100


class Noise(nn.Module):
    def forward(self, x):
        return torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(len(x)))


def test_cells_that_say_nothing_are_flagged(net_x, images):
    constant = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Zero()).double())
    with pytest.warns(TransferscopeWarning, match="constant features"):
        result = ts.compare(net_x, constant, images, layers_x=["0"], layers_y=["0", "1"], device="cpu")
    assert result["informative"].to_numpy().tolist() == [[True, False]]
    assert np.isnan(result.to_numpy()).tolist() == [[False, True]]
    with pytest.warns(TransferscopeWarning, match="directions of the two layers"):
        result = ts.compare(net_x, net_x, images, measure="svcca", layers_x=["0"], layers_y=["0"], device="cpu")
    assert not result["informative"].any()


class Zero(nn.Module):
    def forward(self, x):
        return x * 0


def test_too_few_images_for_the_jackknife_are_an_input_error(net_x, net_y, images):
    with pytest.raises(InputError, match="at least 40 images for the standard error of SVCCA"):
        both(net_x, net_y, images, measure="svcca", reduce="mean", standard_error=True)


# --- precision ----------------------------------------------------------------------------------------------------


class Offset(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x + self.size


@pytest.mark.parametrize("batch_size", [16, 33])
@pytest.mark.parametrize("offset", [0, 100, 3000])
def test_trap_2_activations_far_from_zero(net_x, net_y, images, offset, batch_size):
    """Layers of deviation about one, 100 and 3000 of them away from zero, in float32."""
    batches = [slice(start, start + batch_size) for start in range(0, 33, batch_size)]
    if len(images[batches[-1]]) < 4:
        batches = [slice(0, 16), slice(16, 33)]
    want = expected(net_x, net_y, images, batches)
    far_x, far_y = (
        nn.Sequential(*(nn.Sequential(layer, Offset(0)) for layer in net)).float() for net in (net_x, net_y)
    )
    for net in (far_x, far_y):
        for block in net:
            block[1] = Aside(offset)
    names_x, names_y = ([f"{layer}.1.far" for layer in layers] for layers in (LAYERS_X, LAYERS_Y))
    result = ts.compare(
        far_x, far_y, images.float(), layers_x=names_x, layers_y=names_y, batch_size=batch_size, device="cpu"
    )
    # What float32 activations themselves lose at 3000 is 3000 · 2⁻²⁴ of a deviation, feature by feature.
    np.testing.assert_allclose(result, want, atol=1e-5 if offset < 1000 else 1e-3)


class Aside(nn.Module):
    """Shows its input moved by an offset to whoever listens at `far`, and passes it on as it is."""

    def __init__(self, offset):
        super().__init__()
        self.far = Offset(offset)

    def forward(self, x):
        self.far(x)
        return x


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_activations_are_those_of_their_values(net_x, images, dtype):
    class Half(nn.Module):
        def forward(self, x):
            return x.to(dtype)

    net = nn.Sequential(net_x[0], Half())
    result = ts.compare(net, net_x, images, layers_x="1", layers_y="0", device="cpu", batch_size=64)
    (exact,) = activations(net_x, ["0"], images)
    rounded = torch.from_numpy(exact).to(dtype).double().numpy()
    np.testing.assert_allclose(result, plain([rounded], [exact], [slice(None)]), atol=1e-6)


# --- space and tokens ---------------------------------------------------------------------------------------------


def test_positions_are_samples_at_the_resolution_of_the_smallest_map(net_x, net_y, images):
    """Maps of 6 × 6 and 4 × 4 in x, of 3 × 3 and 2 × 2 in y: all averaged to 2 × 2."""
    options = {"reduce": "positions", "batch_size": 64, "device": "cpu"}
    result = ts.compare(net_x, net_y, images, layers_x=["1", "2"], layers_y=LAYERS_Y, **options)

    def rows(net, layers):
        with torch.no_grad():
            maps = [net.eval()[: int(layer) + 1](images.clone()) for layer in layers]
        pooled = [nn.functional.adaptive_avg_pool2d(each, 2) for each in maps]
        return [each.permute(0, 2, 3, 1).reshape(-1, each.shape[1]).numpy() for each in pooled]

    np.testing.assert_allclose(result, plain(rows(net_x, ["1", "2"]), rows(net_y, LAYERS_Y), [slice(None)]), atol=1e-10)
    assert result.attrs["n_samples"] == 33


class Tokens(nn.Module):
    """Nine patches, then a class token in front of them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 2, 2)
        self.with_class = Prepend()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.with_class(self.patches(x).flatten(2).transpose(1, 2)))[:, 0]


class Prepend(nn.Module):
    def forward(self, x):
        return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)


def test_the_class_token_is_taken_where_there_is_one():
    net = seeded(Tokens).double()
    images = torch.randn(30, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"reduce": "class_token", "device": "cpu", "batch_size": 64}
    result = ts.compare(net, net, images, layers_x="with_class", layers_y=["with_class", "head"], **options)
    with torch.no_grad():
        token = net.patches(images).flatten(2).mean(dim=2)
        features = [token.numpy(), net.head(token).numpy()]
    np.testing.assert_allclose(result, plain(features[:1], features, [slice(None)]), atol=1e-10)
    with pytest.raises(CaptureError, match=r"reduce='class_token'.*patches of shape \(6, 3, 3\)"):
        ts.compare(net, net, images, layers_x="patches", **options)


def test_layers_without_positions_are_left_out_of_auto_with_a_warning(net_x, images):
    with pytest.warns(TransferscopeWarning, match="left out, since `reduce='positions'`"):
        result = ts.compare(net_x, net_x, images, reduce="positions", device="cpu")
    assert result["layer_x"].to_numpy().tolist() == ["1"]


# --- two transforms -----------------------------------------------------------------------------------------------


def test_each_network_can_have_its_own_transform(net_x, net_y):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 12, 3), dtype=np.uint8)
    target = ts.load_target((pixels, [0, 1] * 6))
    transforms = [Transform(size=8, mean=(m,) * 3, std=(0.25,) * 3) for m in (0.2, 0.7)]
    prepared = [torch.stack([t(target.image(i)) for i in range(12)]).double() for t in transforms]
    net_x, net_y = (nn.Sequential(*net).float() for net in (net_x, net_y))
    result = both(net_x, net_y, target, transform=tuple(transforms))
    x = activations(net_x.double(), LAYERS_X, prepared[0])
    y = activations(net_y.double(), LAYERS_Y, prepared[1])
    np.testing.assert_allclose(result, plain(x, y, [slice(None)]), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "full"}, "`estimator` to be 'minibatch' or 'exact', but got 'full'"),
        ({"permutations": -1}, "`permutations` to be a whole number of at least 0, but got -1"),
        ({"reduce": None}, r"`reduce` to give features \(n_samples, n_features\), but got None"),
        ({"reduce": "max"}, r"`reduce`.*but got 'max'"),
        ({"measure": "svca"}, "did you mean 'svcca'"),
    ],
)
def test_wrong_options_are_input_errors(net_x, net_y, images, options, message):
    with pytest.raises(InputError, match=message):
        both(net_x, net_y, images, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("measure", ["linear_cka", "svcca", "mutual_knn"])
@pytest.mark.parametrize("estimator", ["minibatch", "exact"])
def test_a_gpu_gives_what_the_cpu_gives(net_x, net_y, images, measure, estimator):
    pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    options = {"measure": measure, "estimator": estimator, "reduce": "mean", "layers_x": LAYERS_X, "layers_y": LAYERS_Y}
    on_cpu = ts.compare(net_x, net_y, images, device="cpu", batch_size=12, **options)
    on_gpu = ts.compare(net_x, net_y, images, device="cuda", batch_size=12, **options)
    np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-9)


class Regroup(nn.Module):
    def forward(self, x):
        return x.reshape(2 * len(x), -1)


@pytest.mark.parametrize("measure", ["linear_cka", "svcca"])
def test_a_layer_that_regroups_samples_is_named(net_x, images, measure):
    net = nn.Sequential(nn.Conv2d(3, 4, 3).double(), Regroup())
    with pytest.raises(CaptureError, match=r"layer '1' to give 1 rows an image, but got 66 for 33"):
        ts.compare(net, net, images, layers_x="1", layers_y="1", measure=measure, device="cpu", batch_size=64)


@pytest.mark.parametrize("measure", sorted(set(similarity.MEASURES) - {"linear_cka"}))
def test_wide_layers_of_few_directions_on_disk_are_what_they_are_in_memory(measure):
    """Wider than long, yet with directions to spare: rotations or rounding would show there."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(40, 6))
    x, y = ((shared + rng.normal(size=(40, 6))) @ (rng.normal(size=(6, 90)) ** 3) for _ in range(2))
    want = similarity.MEASURES[measure].pairs([similarity.Representation(x)], [similarity.Representation(y)])
    with KeptFeatures(budget=0) as kept:
        kept.add("x", x)
        kept.add("y", y)
        layers = representations(kept.features(["x", "y"]))
    cells = measure_cells(measure, layers[:1], layers[1:], standard_error=False, permutations=0, seed=0)
    np.testing.assert_allclose(cells.values, want, atol=1e-12)
    assert 0.1 < cells.values[0, 0] < 0.999


def test_each_layer_is_factored_once_for_several_measures(net_x, net_y, images, monkeypatch):
    calls = []
    plain_svd = linalg.thin_svd
    monkeypatch.setattr(linalg, "thin_svd", lambda *a, **k: calls.append(1) or plain_svd(*a, **k))
    measures = ["svcca", "pwcca", "procrustes"]
    options = Options(measures=measures, layers_x=LAYERS_X, layers_y=LAYERS_Y, reduce="mean", device="cpu")
    compare_by(net_x, net_y, images, options)
    assert len(calls) == len(LAYERS_X) + len(LAYERS_Y)


# --- networks made faster -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_faster_networks_compare_as_they_are(shared, monkeypatch):
    """A convolution that the other network captures keeps its output, even where the two have it in common."""

    def block():
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))

    net_x, net_y = (seeded(block).eval() for _ in range(2))
    for net in (net_x, net_y):
        net[1].running_var.fill_(3.0)
    net_y = nn.Sequential(*net_x[:4], nn.ReLU()) if shared else net_y
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    options = {"layers_x": ["1", "4"], "layers_y": ["0", "3"], "batch_size": 64, "device": "cpu"}
    found = ts.compare(net_x, net_y, images, **options)
    monkeypatch.setattr("transferscope.verbs.compare.networks._FEWEST_SPED_UP", 1000)
    np.testing.assert_allclose(found, ts.compare(net_x, net_y, images, **options), atol=1e-6)
