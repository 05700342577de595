"""Whole numbers are those of Python and NumPy; a bool, which is an int to Python, is none anywhere."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

import transferscope as ts
from transferscope.arrays.linalg import sketched_svd
from transferscope.data.images import Transform
from transferscope.data.splits import draw
from transferscope.errors import InputError, check_whole, is_whole
from transferscope.prediction.covariates import Case
from transferscope.protocols.heads.toptuning import NystromKernelRidge
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.checks import check_numbers
from transferscope.runtime.footprint import Meter
from transferscope.similarity import MinibatchCKA, mutual_knn, svcca
from transferscope.transferability import gbc, knn, nleep, parc, sfda
from transferscope.verbs.parameters.companions import gradient_signal_to_noise
from transferscope.verbs.rank.request import RankRequest

X = np.random.default_rng(0).normal(size=(40, 6))
Y = np.arange(40) % 3
IMAGES = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def compared(**options):
    return ts.compare(net(), net(), IMAGES, layers_x=["1"], layers_y=["1"], device="cpu", **options)


def asked(**options):
    return RankRequest(target="data", zoo="zoo.yaml", device="cpu", **options)


CALLS = {
    "samples": (lambda n: asked(samples=n), 5),
    "batch_size": (lambda n: asked(batch_size=n), 5),
    "seed": (lambda n: asked(seed=n), 5),
    "samples of a probe": (lambda n: ts.load_target((np.zeros((6, 4, 4), np.uint8), Y[:6])).probe(n, 0), 6),
    "seeds": (lambda n: check_numbers([1], seeds=n), 5),
    "samples_per_class": (lambda n: check_numbers([n], seeds=1), 5),
    "depths": (lambda n: check_numbers([1], [n], seeds=1), 5),
    "per_class": (lambda n: draw(Y, n, 0), 2),
    "seed of a draw": (lambda n: draw(Y, 2, n), 2),
    "k": (lambda n: knn(X, Y, k=n), 3),
    "k of mutual_knn": (lambda n: mutual_knn(X, X, k=n), 3),
    "seed of nleep": (lambda n: nleep(X, Y, seed=n), 3),
    "n_components of parc": (lambda n: parc(X, Y, n_components=n), 3),
    "n_components of gbc": (lambda n: gbc(X, Y, n_components=n), 3),
    "n_components of sfda": (lambda n: sfda(X, Y, n_components=n), 3),
    "rank": (lambda n: svcca(X, X, rank=n), 3),
    "rank of a sketch": (lambda n: sketched_svd(X, n), 3),
    "permutations": (lambda n: compared(permutations=n), 3),
    "batch_size of compare": (lambda n: compared(batch_size=n), 8),
    "seed of compare": (lambda n: compared(seed=n), 3),
    "permutations of a stream": (lambda n: MinibatchCKA(permutations=n), 3),
    "seed of a stream": (lambda n: MinibatchCKA(seed=n), 3),
    "group": (lambda n: MinibatchCKA(group=n), 3),
    "epochs": (lambda n: Recipe(epochs=n), 3),
    "min_steps": (lambda n: Recipe(min_steps=n), 3),
    "size": (lambda n: Transform(n, (0, 0, 0), (1, 1, 1)), 3),
    "resize": (lambda n: Transform(1, (0, 0, 0), (1, 1, 1), resize=n), 3),
    "probe": (lambda n: Case(samples=5, probe=n, classes=2), 3),
    "workers": (lambda n: Meter(workers=n), 3),
    "centers": (lambda n: NystromKernelRidge(centers=n).fit(X, Y), 3),
    "batches": (
        lambda n: gradient_signal_to_noise(net(), IMAGES, torch.arange(8) % 2, {"1": ["1.weight"]}, batches=n),
        2,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bool_is_no_number_and_the_error_names_the_argument(name):
    call, _ = CALLS[name]
    for value in (True, np.True_):
        with pytest.raises(InputError, match=rf"\b{name.split(' ')[0]}\b.*True"):
            call(value)


@pytest.mark.parametrize("name", CALLS)
def test_a_numpy_integer_is_one(name):
    call, value = CALLS[name]
    call(np.int64(value))


def test_whole_numbers():
    assert is_whole(-3)
    assert is_whole(np.uint8(3), 3)
    assert not any(map(is_whole, (True, np.False_, 2.0, np.float64(2), "2", None)))
    assert not is_whole(2, 3)
    checked = check_whole("k", np.int16(2), 1)
    assert (checked, type(checked)) == (2, int)
    for value in (0, 2**63, 1.0, None, False):
        with pytest.raises(InputError, match=rf"`k` to be a whole number of at least 1, but got {value}"):
            check_whole("k", value, 1)


@pytest.mark.parametrize("made", [Recipe(epochs=np.int64(3)), Transform(np.int32(3), (0, 0, 0), (1, 1, 1))])
def test_what_names_a_result_in_the_cache_holds_python_numbers(made):
    assert "3" in json.dumps(dataclasses.asdict(made))
