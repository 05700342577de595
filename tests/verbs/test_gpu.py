"""Verbs end to end on a GPU give what they give on the CPU.

Where there is no GPU, features of another library than NumPy stand in for those of CuPy: what mixes the two fails.
"""

import array_api_strict
import numpy as np
import pytest
import torch
from compact_networks import network
from device import roundtrips
from image_folders import coloured_noise
from safetensors.torch import save_file

import transferscope as ts
from transferscope.arrays import backend

FACTORY = """
from transferscope.networks import CompactResNet

def build():
    return CompactResNet(3, width=4)
"""
PROTOCOLS = "truncate", "toptuning", "fne", "reinit", "finetune"
SCORES = [name for name in ts.transferability.SCORES if name != "nleep"]
"""N-LEEP is computed by scikit-learn, on the host."""


@pytest.fixture(params=["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """A GPU, or the CPU with features that are no NumPy arrays."""
    if request.param == "cuda":
        if not backend.has_cupy():
            pytest.skip("needs CuPy and a GPU")
        return "cuda"
    plain = backend.from_torch
    monkeypatch.setattr(backend, "from_torch", lambda tensor: array_api_strict.asarray(plain(tensor)))
    return "cpu"


@pytest.fixture
def target(tmp_path):
    return coloured_noise(tmp_path / "target", per_class=8, size=32)


@pytest.fixture
def zoo(tmp_path):
    """A network with weights, and one more to be the reference."""
    (tmp_path / "nets.py").write_text(FACTORY)
    entries = []
    for seed, name in enumerate(["one", "other"]):
        save_file(network(seed).state_dict(), tmp_path / f"{name}.safetensors")
        entries.append({
            "name": name, "loader": "python", "factory": str(tmp_path / "nets.py:build"),
            "checkpoint": str(tmp_path / f"{name}.safetensors"),
            "transform": {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}, "layers": ["blocks.0", "blocks.3"],
        })  # fmt: skip
    return entries


def test_rank_with_every_score(device, target, zoo, monkeypatch, tmp_path):
    options = {"scores": SCORES, "uncertainty": 2, "reference": "other", "trust_code": True, "progress": False}
    ranked = ts.rank(target, zoo, device=device, **options)
    monkeypatch.undo()
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "elsewhere"))
    plain = ts.rank(target, zoo, device="cpu", **options)
    assert set(plain.scores.data_vars) == set(ranked.scores.data_vars)
    # Convolutions of a GPU multiply with ten bits of mantissa; the stand-in computes as NumPy does.
    tolerance = 1e-9 if device == "cpu" else 2e-2
    for name in [*SCORES, "linear_cka", "svcca"]:
        accuracy = "accuracy" in ts.transferability.SCORES[name].range if name in SCORES else False
        found, expected = ranked.scores[name].to_numpy(), plain.scores[name].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance + accuracy / 8, err_msg=name)


def test_rank_trains_its_reference(device, target, zoo):
    ranked = ts.rank(
        target, zoo[:1], device=device, mode="quick", recipe=ts.Recipe(epochs=1), trust_code=True, progress=False
    )
    assert ranked.scores["linear_cka"].notnull().all()


@pytest.mark.parametrize("measure", list(ts.similarity.MEASURES))
def test_compare_by_every_measure(device, measure):
    images = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    nets = network(0).eval(), network(1).eval()
    options = {"measure": measure, "reduce": "mean", "batch_size": 48, "estimator": "exact"}
    options |= {"layers_x": ["blocks.0", "blocks.3"], "layers_y": ["blocks.1", "head"]}
    found = ts.compare(*nets, images, device=device, **options)
    expected = ts.compare(*(net.cpu() for net in nets), images, device="cpu", **options)
    np.testing.assert_allclose(found, expected, atol=1e-9 if device == "cpu" else 5e-2)


def test_measure_runs_every_protocol(device, target, zoo, tmp_path):
    found = ts.measure(
        target, zoo[:1], tmp_path / "measured", protocols=list(PROTOCOLS), depths=[1], samples_per_class=[4],
        seeds=1, epochs=1, min_steps=1, device=device, trust_code=True, progress=False,
    )  # fmt: skip
    assert sorted(found.runs["protocol"].unique()) == sorted(PROTOCOLS)
    assert found.runs["accuracy"].between(0, 1).all()


@pytest.fixture
def trips(device, monkeypatch):
    """Return a function that runs another and counts how often the host asked the device for a number."""
    if device == "cuda":
        return lambda function: roundtrips.counted(function).transfers
    count = [0]
    kind = type(array_api_strict.ones(1))
    for name in ("__bool__", "__int__", "__float__", "__array__", "__index__"):
        asked = getattr(kind, name)

        def counting(self, *given, asked=asked, **options):
            count[0] += 1
            return asked(self, *given, **options)

        monkeypatch.setattr(kind, name, counting)

    def run(function):
        count[0] = 0
        function()
        return count[0]

    return run


def test_more_batches_are_no_more_round_trips(device, trips):
    nets = network(0).eval(), network(1).eval()

    def compare(n_batches):
        images = torch.randn(8 * n_batches, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        options = {"layers_x": ["blocks.0", "head"], "layers_y": ["blocks.1"], "batch_size": 8, "device": device}
        return lambda: ts.compare(*nets, images, **options)

    compare(2)()
    few = trips(compare(2))
    assert few > 0
    assert trips(compare(6)) == few
