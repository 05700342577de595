"""Rows of pure array functions: what the device can do, CKA of all pairs of layers, SVCCA, scores."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from device.machine import Machine, largest_difference
from transferscope import similarity, transferability
from transferscope.arrays import backend

PRECISIONS = ("float32", "tf32", "bfloat16")


def ceilings(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Measure a large matrix product in each precision, and a copy."""
    n = machine.sizes.product
    a = machine.random(n, n)
    found: dict[str, Any] = {}
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        for name, precision in (("float32", "ieee"), ("tf32", "tf32")):
            torch.backends.cuda.matmul.fp32_precision = precision
            found[f"{name} TFLOP/s"] = 2 * n**3 / machine.seconds(lambda: a @ a) / 1e12
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    for name, kind in (("bfloat16", torch.bfloat16), ("float64", torch.float64)):
        other = a.to(kind)
        found[f"{name} TFLOP/s"] = 2 * n**3 / machine.seconds(lambda other=other: other @ other) / 1e12
    block = machine.random(machine.sizes.copied // 4)
    found["copy GB/s"] = 2 * 4 * len(block) / machine.seconds(block.clone) / 1e9
    return found


def layers_like(machine: Machine, n: int, p: int) -> Iterator[torch.Tensor]:
    """Yield activations (n, p) after a ReLU, of layers that share some of what they know."""
    shared = machine.random(n, 64, seed=1)
    for layer in range(machine.sizes.layers):
        seen = shared @ machine.random(64, p, seed=100 + layer) / 8
        yield torch.relu(seen + machine.random(n, p, seed=1000 + layer))


def cka_exactly(layers: list[torch.Tensor]) -> np.ndarray:
    """Return debiased CKA of all pairs by its plain formula, in float64, from whichever products are smaller.

    Of centred Gram matrices K and L with diagonals d and e, n (n - 3) times the unbiased HSIC of Song et al. (2012) is
    ΣKL - n / (n - 2) Σde + ΣdΣe / ((n - 1) (n - 2)); ΣKL is that of the squares of XᵀY.
    """
    n, p = layers[0].shape
    norms = torch.stack([(_centred(layer) ** 2).sum(dim=1) for layer in layers])
    count = len(layers)
    products = torch.empty(count, count, dtype=torch.float64, device=layers[0].device)
    if n <= p:
        grams = [(x := _centred(layer)) @ x.T for layer in layers]
        for i, K in enumerate(grams):
            for j, L in enumerate(grams[: i + 1]):
                products[i, j] = products[j, i] = (K * L).sum()
    else:
        for i, layer in enumerate(layers):
            x = _centred(layer)
            for j, other in enumerate(layers[: i + 1]):
                products[i, j] = products[j, i] = ((x.T @ _centred(other)) ** 2).sum()
    totals = norms.sum(dim=1)
    unbiased = products - n / (n - 2) * norms @ norms.T + totals[:, None] * totals / ((n - 1) * (n - 2))
    scale = unbiased.diagonal().sqrt()
    return (unbiased / scale / scale[:, None]).cpu().numpy()


def _centred(layer: torch.Tensor) -> torch.Tensor:
    return layer.double() - layer.double().mean(dim=0)


def cka(n: int, p: int, precision: str) -> Any:
    """Return the row of CKA of all pairs of layers (n, p) in one precision."""

    def row(machine: Machine, record: dict[str, Any]) -> dict[str, Any]:
        tensors = list(layers_like(machine, n, p))
        exact = f"exact CKA, n = {n}"
        if exact not in record:
            record[exact] = cka_exactly(tensors).tolist()
        arrays = [machine.array(tensor) for tensor in tensors]

        def compare() -> Any:
            accumulator = similarity.MinibatchCKA()
            with machine.stream(), backend.product_precision(precision, machine.device):
                accumulator.update(arrays)
                return accumulator.result()

        error = largest_difference(compare(), np.array(record[exact]))
        seconds = machine.seconds(compare, rounds=None if n < 10_000 else 1, warm=False)
        done = len(arrays) * 2.0 * n * n * p
        ceiling = record.get("ceilings", {})
        return {
            "seconds": seconds,
            "error against float64": error,
            "TFLOP/s of the Gram matrices": done / seconds / 1e12,
            "of the product's ceiling": done / seconds / 1e12 / ceiling.get(f"{precision} TFLOP/s", float("nan")),
            "of the copy's ceiling": len(arrays) * 4.0 * n * p / seconds / 1e9 / ceiling.get("copy GB/s", float("nan")),
        }

    return row


def labelled(machine: Machine) -> tuple[list[torch.Tensor], np.ndarray]:
    """Return features of some layers, and labels of ten classes that they know something of."""
    n, p, count = machine.sizes.scored
    labels = np.arange(n) % 10
    means = machine.random(10, p, seed=5)[torch.from_numpy(labels).to(machine.device)]
    return [0.3 * means + machine.random(n, p, seed=50 + layer) for layer in range(count)], labels


def svcca(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
    """Compare all pairs of layers by SVCCA, here and on the CPU."""
    tensors, _ = labelled(machine)

    def compare(arrays: list[Any]) -> Any:
        subspaces = [similarity.svcca_subspace(array) for array in arrays]
        return similarity.svcca_matrix(subspaces, subspaces)

    return _beside_the_cpu(machine, [machine.array(each) for each in tensors], tensors, compare)


def score(name: str) -> Any:
    """Return the row of one transferability score, here and on the CPU."""

    def row(machine: Machine, _record: dict[str, Any]) -> dict[str, Any]:
        tensors, labels = labelled(machine)
        entry = transferability.SCORES[name]
        if entry.needs != "features":
            tensors = [torch.softmax(tensors[0][:, :20], dim=1)]
        function = entry.function

        def compute(arrays: list[Any]) -> np.ndarray:
            return np.array([function(array, labels) for array in arrays[:1]])

        return _beside_the_cpu(machine, [machine.array(each) for each in tensors], tensors, compute)

    return row


def _beside_the_cpu(machine: Machine, here: list[Any], tensors: list[torch.Tensor], function: Any) -> dict[str, Any]:
    host = [tensor.cpu().numpy() for tensor in tensors]
    with machine.stream():
        difference = largest_difference(function(here), function(host))
        seconds = machine.seconds(lambda: function(here), rounds=2, warm=False)
    return {
        "seconds": seconds,
        "on the CPU": machine.seconds(lambda: function(host), rounds=1, warm=False),
        "difference": difference,
    }
