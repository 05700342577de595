"""Sections of `similarity.py` without a forward pass: kernels alone, and growth of time."""

from pathlib import Path
from typing import Any

import numpy as np

from comparison.peers import OURS
from comparison.runs import (
    KERNEL_BUDGET,
    KERNEL_LIMIT,
    Result,
    Sizes,
    Worker,
    claimed,
    deviation,
    number,
    present,
    record,
    table,
    truths,
)

FIRST_LAYERS = 10
"""Whose deviation is looked at."""


def write_activations(path: Path, layers: int, n: int, p: int) -> str:
    """Write random activations (2, layers, n, p), float32: noise around one matrix common to all layers."""
    generator = np.random.default_rng(0)
    common = generator.standard_normal((n, p), dtype=np.float32)
    both = np.lib.format.open_memmap(path, "w+", np.float32, (2, layers, n, p))
    for layer in range(layers):
        for side in both:
            side[layer] = common + generator.standard_normal((n, p), dtype=np.float32)
    both.flush()
    return str(path)


def kernel_section(sizes: Sizes, folder: Path, rounds: int, device: str, threads: int) -> str:
    """Return the section of workload c: all pairs of layers of activations that are there already, in one batch."""
    names = present()
    workers = {name: Worker(name, device, threads) for name in names}
    results: dict[tuple[int, int], dict[str, Result]] = {}
    references: dict[int, Any] = {}
    for n in sizes.samples:
        path = write_activations(folder / "activations.npy", max(sizes.layers), n, sizes.features)
        judged = min(FIRST_LAYERS, *sizes.layers)
        few = {"kind": "arrays", "path": path, "layers": judged}
        references[n] = truths(few, "cpu", threads, (0.0,))[0]
        for layers in sizes.layers:
            case = {"kind": "arrays", "path": path, "layers": layers}
            left_out = {name for name in names if hopeless(name, layers, n, results)}
            results[layers, n] = run_case(case, workers, left_out, rounds, device, threads)
    for worker in workers.values():
        worker.close()
    return kernel_tables(sizes, names, results, references)


def hopeless(name: str, layers: int, n: int, results: dict[tuple[int, int], dict[str, Result]]) -> bool:
    """Tell whether a smaller size failed, or took so long that L n² growth, the least there is, exceeds the limit."""
    for (fewer, m), by_tool in results.items():
        result = by_tool[name]
        if fewer <= layers and m <= n:
            if result.error:
                return True
            # What takes less than a second is mostly overhead, which does not grow so.
            if result.median > 1 and result.median * layers / fewer * (n / m) ** 2 > KERNEL_LIMIT:
                return True
    return False


def run_case(
    case: dict[str, Any], workers: dict[str, Worker], left_out: set[str], rounds: int, device: str, threads: int
) -> dict[str, Result]:
    """Run every tool on one size; those without hope are left out."""
    results = {name: Result() for name in workers}
    planned = dict.fromkeys(workers, 0)
    for name, result in results.items():
        if name in left_out:
            result.error = "not run"
            continue
        answer = workers[name].ask("open", workload=case)
        result.baseline = answer.get("baseline", 0.0)
        if "error" not in answer:
            answer = workers[name].ask("round", KERNEL_LIMIT)
        if "error" in answer:
            result.error = answer["error"]
            workers[name].close()
            workers[name] = Worker(name, device, threads)
        elif answer["seconds"] > KERNEL_BUDGET / 2:
            record(result, answer)
        else:
            planned[name] = max(1, min(rounds, int(KERNEL_BUDGET / answer["seconds"])))
    for count in range(rounds):
        for name, result in results.items():
            if count < planned[name]:
                record(result, workers[name].ask("round", KERNEL_LIMIT))
    return results


def kernel_tables(
    sizes: Sizes, names: list[str], results: dict[tuple[int, int], dict[str, Result]], references: dict[int, Any]
) -> str:
    """Return time and memory by size, and the deviation over the first layers."""
    rows = [["layers", "samples", *names]]
    for (layers, n), by_tool in results.items():
        cells = []
        for result in by_tool.values():
            if not result.seconds:
                cells.append(str(result.error))
                continue
            ours = by_tool[OURS]
            ratio = f" ({result.median / ours.median:.1f} ×)" if ours.seconds and result is not ours else ""
            cells.append(f"{result.median:.3g} s{ratio}, {result.peak - result.baseline:.0f} MiB")
        rows.append([str(layers), str(n), *cells])
    text = (
        f"\n## (c) Kernels alone: L × L pairs of random activations, {sizes.features} features\n\n"
        "Noise around a matrix common to all layers; one batch of all samples. Through a network that plays the "
        f"activations back where a tool takes no arrays. Stopped after {KERNEL_LIMIT:.0f} s; not run where a smaller "
        "size failed or, grown by L n², promises more. Few rounds where one takes long. Memory above what the process "
        f"held before.\n\n{table(rows)}\n"
    )
    judged = min(FIRST_LAYERS, *sizes.layers)
    rows = [["samples", *names]]
    for n in sizes.samples:
        cells = []
        for name in names:
            result = results[min(sizes.layers), n][name]
            values = None if result.matrix is None else np.asarray(result.matrix)[:judged, :judged]
            result.clean = values
            cells.append(
                "" if values is None else number(deviation(values, references[n][claimed(name, result, references[n])]))
            )
        rows.append([str(n), *cells])
    return text + f"Deviation from plain float64, first {judged} × {judged} pairs:\n\n{table(rows)}"


def growth_section(sizes: Sizes, folder: Path, rounds: int, device: str, threads: int) -> str:
    """Return how our time grows with the number of layers, samples and features."""
    worker = Worker(OURS, device, threads)
    rows = [["grows", "sizes", "seconds", "exponent", "of the upper half"]]
    for what, values in sizes.growth.items():
        seconds = []
        for value in values:
            size = {**sizes.base, what: value}
            path = write_activations(folder / "activations.npy", size["L"], size["n"], size["p"])
            worker.ask("open", workload={"kind": "arrays", "path": path, "layers": size["L"]})
            result = Result()
            for count in range(rounds + 1):
                answer = worker.ask("round")
                if count:
                    record(result, answer)
            if result.error:
                return f"\n## Growth\n\nNot measured: {result.error}.\n"
            seconds.append(result.median)
        slopes = [slope(values, seconds), slope(values[len(values) // 2 :], seconds[len(values) // 2 :])]
        shown = ", ".join(f"{s:.3g}" for s in seconds)
        rows.append([what, ", ".join(map(str, values)), shown, *(f"{exponent:.2f}" for exponent in slopes)])
    worker.close()
    base = ", ".join(f"{key} = {value}" for key, value in sizes.base.items())
    return (
        "\n## Growth of our time\n\n"
        f"L × L pairs of layers, n samples in one batch, p features; where not varied, {base}. Exponents are slopes "
        "of a line through log time over log size; Grams cost L n² p, the pairs L² n².\n\n" + table(rows)
    )


def slope(sizes: Any, seconds: Any) -> float:
    """Return the exponent of a power law through these times; NaN from a single one."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(sizes) > 1 else float("nan")
