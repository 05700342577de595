"""Top-tuning: its time and memory beside scikit-learn, and what its defaults rest on.

    TRANSFERSCOPE_REAL=... python benchmarks/toptuning.py [--part speed|real|all] [--output folder] [--quick]

Writes toptuning.md into `--output`. Every fit runs in a process of its own. The part on real data needs
TRANSFERSCOPE_REAL, a folder with `data/*.zip` and `zoo/*`, and is left out without it. `--quick` shrinks everything,
to see that it runs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scores_references import table

CLASSES, TEST, PENALTY = 10, 2000, 1e-5
IMAGES, FEW = 1500, 3
"""Images of a real target, half of them to learn from; and images of a class where nothing can be chosen."""


class Size(NamedTuple):
    """Features, and how many of the samples are centres."""

    n: int
    p: int
    centers: int


class Fit(NamedTuple):
    """What one process found."""

    seconds: float
    peak: float
    """MiB, of the whole process."""
    accuracy: float


def features(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 features like those of a network, rectified and of falling variance, and codes; test samples last.

    They are filled in by rows, so that making them takes no more memory than they do.
    """
    rng = np.random.default_rng(0)
    X, codes = np.empty((n + TEST, p), np.float32), rng.integers(CLASSES, size=n + TEST)
    means, scale = rng.normal(size=(CLASSES, p)).astype(np.float32), np.logspace(0, -1.5, p, dtype=np.float32)
    for rows in np.array_split(np.arange(n + TEST), max(1, n // 1000)):
        noise = rng.standard_normal((len(rows), p), dtype=np.float32)
        X[rows] = np.maximum(noise + np.float32(0.12) * means[codes[rows]] + np.float32(0.3), 0) * scale
    return X, codes


def ours(solver: str) -> Callable[..., Any]:
    """Return what fits `NystromKernelRidge` and predicts."""

    def run(X: np.ndarray, y: np.ndarray, Q: np.ndarray, centers: np.ndarray, sigma: float) -> np.ndarray:
        from transferscope.protocols.heads.toptuning import NystromKernelRidge

        return NystromKernelRidge(len(centers), sigma=sigma, penalty=PENALTY, solver=solver).fit(X, y).predict(Q)

    return run


def search(X: np.ndarray, y: np.ndarray, Q: np.ndarray, centers: np.ndarray, sigma: float) -> np.ndarray:
    """Choose among all σ and λ, fit and predict."""
    from transferscope.protocols.heads.toptuning import TopTuning

    return TopTuning(len(centers)).fit(X, y).predict(Q)


def sklearn_nystroem(dtype: Any) -> Callable[..., Any]:
    """Return what fits scikit-learn's Nyström features of the same centres and its ridge classifier, and predicts."""

    def run(X: np.ndarray, y: np.ndarray, Q: np.ndarray, centers: np.ndarray, sigma: float) -> np.ndarray:
        from sklearn.kernel_approximation import Nystroem
        from sklearn.linear_model import RidgeClassifier

        mapping = Nystroem(gamma=1 / (2 * sigma**2), n_components=len(centers)).fit(centers.astype(dtype))
        ridge = RidgeClassifier(alpha=PENALTY * len(X), fit_intercept=False)
        return ridge.fit(mapping.transform(X.astype(dtype)), y).predict(mapping.transform(Q.astype(dtype)))

    return run


def sklearn_exact(X: np.ndarray, y: np.ndarray, Q: np.ndarray, centers: np.ndarray, sigma: float) -> np.ndarray:
    """Fit scikit-learn's kernel ridge, whose centres are all samples, and predict."""
    from sklearn.kernel_ridge import KernelRidge

    model = KernelRidge(alpha=PENALTY * len(X), kernel="rbf", gamma=1 / (2 * sigma**2))
    return model.fit(X.astype(np.float64), np.eye(CLASSES)[y]).predict(Q.astype(np.float64)).argmax(axis=1)


RUNS: dict[str, Callable[..., np.ndarray]] = {
    "ours, direct": ours("direct"),
    "ours, conjugate gradients": ours("conjugate_gradient"),
    "scikit-learn Nystroem + RidgeClassifier, float64": sklearn_nystroem(np.float64),
    "scikit-learn Nystroem + RidgeClassifier, float32": sklearn_nystroem(np.float32),
    "scikit-learn KernelRidge": sklearn_exact,
    "ours, all 21 σ and λ (TopTuning)": search,
}
NYSTROM, EXACT, SEARCH = list(RUNS)[:4], [*list(RUNS)[:2], list(RUNS)[4]], list(RUNS)[5:]


def work(name: str, size: Size) -> Fit:
    """Fit and predict once, everything imported and warmed up."""
    X, codes = features(size.n, size.p)
    chosen = np.sort(np.random.default_rng(1).permutation(size.n)[: size.centers])
    few = X[chosen[:300]].astype(np.float64)
    sigma = float(np.median(np.sqrt(((few[:, None, :64] - few[None, :, :64]) ** 2).sum(axis=2) * size.p / 64)))
    RUNS[name](X[:60], codes[:60], X[:5], X[:20], sigma)
    started = time.perf_counter()
    predictions = RUNS[name](X[: size.n], codes[: size.n], X[size.n :], X[chosen], sigma)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Fit(seconds, peak, float(np.mean(predictions == codes[size.n :])))


def measured(name: str, size: Size) -> Fit:
    """Run `work` in a fresh process."""
    command = [sys.executable, __file__, "--worker", json.dumps([name, size])]
    return Fit(*json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def cell_section(size: Size, names: list[str]) -> tuple[str, dict[str, Fit]]:
    """Measure the named runs at one size; a table, and the numbers."""
    fits = {name: measured(name, size) for name in names}
    rows = [["", "seconds", "÷ ours, direct", "peak memory", "accuracy"]]
    for name, fit in fits.items():
        ratio = f"{fit.seconds / fits[names[0]].seconds:.2f} ×" if len(names) > 1 else ""
        rows.append([name, f"{fit.seconds:.2f}", ratio, f"{fit.peak:.0f} MiB", f"{fit.accuracy:.3f}"])
    title = f"n = {size.n}, D = {size.p}, M = {min(size.centers, size.n)}, C = {CLASSES}"
    return f"\n### {title}\n\n{table(rows)}", fits


def speed_part(quick: bool) -> str:
    """Return the sections on time and memory."""
    large = Size(1000, 64, 100) if quick else Size(50_000, 1280, 2000)
    exact = Size(200, 64, 200) if quick else Size(3000, 1280, 3000)
    searched = [Size(100, 64, 2000)] if quick else [Size(500, 1280, 2000), Size(2000, 1280, 2000)]
    text, fits = cell_section(large, NYSTROM)
    for size, names in ((exact, EXACT), *((size, SEARCH) for size in searched)):
        text += cell_section(size, names)[0]
    rows = [["target", "measured", ""]]
    for name in NYSTROM[:2]:
        peak = fits[name].peak / 1024
        verdict = "met" if peak < 4 else "**missed**"
        rows.append([f"{name}, n = {large.n}: peak memory under 4 GiB", f"{peak:.2f} GiB", verdict])
    return (
        f"\n## Targets\n\n{table(rows)}\n## Time and memory\n\n"
        "Float32 features, rectified and of falling variance, with class means apart. Seconds of one fit and the "
        f"prediction of {TEST} samples, σ and λ given (λ = {PENALTY:g}) but in the search; ours works in float64. Peak "
        "memory is that of the whole process, with the features and everything imported. scikit-learn's two have the "
        "same λ and σ, and as many centres, drawn alike.\n" + text
    )


def real_features(folder: Path, real: Path, images: int, networks: list[str]) -> list[tuple[str, np.ndarray, Any]]:
    """Return features of three cuts of each network on three targets, with labels: at 1/3, 2/3 and all of the depth."""
    import torch
    from scores_real import BATCH, TARGETS, unpacked, zoo

    from transferscope.runtime.store import Store
    from transferscope.verbs.features import source_features

    made = []
    for name in TARGETS:
        probe = unpacked(folder, real, name).probe(images, 0)
        for source in (each for each in zoo(folder, real / "zoo", 96) if each.name in networks):
            found = source_features(
                source, probe, trust_code=True, store=Store(folder / "store"), device=torch.device("cpu"),
                batch_size=BATCH,
            )  # fmt: skip
            depths = len(found.stages)
            for depth in (depths // 3, 2 * depths // 3, depths):
                layer = found.stages[depth - 1].layer
                made.append((f"{name}, {source.name}, {depth}/{depths}", found.arrays[layer], probe.labels))
    return made


def standardised(X: np.ndarray, Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    deviation = X.std(axis=0)
    deviation[deviation <= 1e-6 * np.abs(X).max(axis=0)] = np.inf
    return (X - X.mean(axis=0)) / deviation, (Q - X.mean(axis=0)) / deviation


def real_part(real: Path, quick: bool) -> str:
    """Return the section on real features: as they are or standardised, and λ where none can be chosen."""
    from transferscope.protocols.heads.toptuning import PENALTIES, NystromKernelRidge, TopTuning

    networks = ["mobilenetv2-imagenet", "mobilenetv2-inat-bird", "resnet20-cifar10"]
    rows, few = [["target, network, cut", "as they are", "standardised"]], []
    with tempfile.TemporaryDirectory() as folder:
        layers = real_features(Path(folder), real, 200 if quick else IMAGES, networks[-1:] if quick else networks)
    for name, X, labels in layers:
        half = len(labels) // 2
        splits = [(X[:half], X[half:]), standardised(X[:half], X[half:])]
        accuracies = [TopTuning().fit(A, labels[:half]).score(B, labels[half:]) for A, B in splits]
        rows.append([name, *(f"{accuracy:.3f}" for accuracy in accuracies)])
        drawn = np.concatenate([np.flatnonzero(labels[:half] == label)[:FEW] for label in np.unique(labels[:half])])
        few.append(
            [
                NystromKernelRidge(penalty=penalty).fit(X[drawn], labels[drawn]).score(X[half:], labels[half:])
                for penalty in PENALTIES
            ]
        )
    pairs = np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])
    rows.append(["**mean**", *(f"**{mean:.3f}**" for mean in pairs.mean(axis=0))])
    better = int(np.sum(pairs[:, 1] > pairs[:, 0])), int(np.sum(pairs[:, 1] < pairs[:, 0]))
    defaults = [["λ", *(f"{penalty:.0e}" for penalty in PENALTIES)]]
    defaults.append(["mean accuracy", *(f"{accuracy:.3f}" for accuracy in np.mean(few, axis=0))])
    return (
        "\n## Real features\n\n### As they are, or standardised\n\n"
        f"Accuracy of `TopTuning`, spatial means of the cut's output for images of 96 px (32 px for resnet20), half of "
        f"{len(layers[0][2])} images to learn from and the other half to test on. Standardised by the means and "
        f"deviations of the former: better at {better[0]} cuts, worse at {better[1]}.\n\n{table(rows)}\n"
        f"### Too few images to choose λ by\n\nσ = median distance, {FEW} images of a class, mean over these cuts.\n\n"
        f"{table(defaults)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("speed", "real", "all"), default="all")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, size = json.loads(arguments.worker)
        print(json.dumps(work(name, Size(*size))))
        return
    real = os.environ.get("TRANSFERSCOPE_REAL")
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    text = (
        "# Top-tuning: time, memory, and what its defaults rest on\n\n"
        f"Made by `python benchmarks/toptuning.py`. {platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS "
        f"{threads}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn", "transferscope"))
        + ".\n"
    )
    if arguments.part != "real":
        text += speed_part(arguments.quick)
    if arguments.part != "speed" and real:
        text += real_part(Path(real), arguments.quick)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "toptuning.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
