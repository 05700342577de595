"""Scores of numbers and of several labels an image, beside heads that scikit-learn fits and tests on other images.

    TRANSFERSCOPE_REAL=... python benchmarks/tasks.py [--images 400] [--networks 7] [--side 96]

Needs TRANSFERSCOPE_REAL, a folder with `data/sign-digits.zip` and `zoo/`; says so and stops without it. The pictures of
digits shown by hands are turned by a known angle; their mean brightness is another number that is known; and five
labels, of which each picture has some, follow from the digit and the angle.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.metrics import average_precision_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from transferability.real import unpacked, zoo
from transferscope.data.target import Target, load_target
from transferscope.networks.zoo import Source
from transferscope.runtime.store import Store
from transferscope.verbs.features import source_features
from transferscope.verbs.score import score

FURTHEST = 60.0
"""Degrees, either way."""
SIDE = 64
"""Pixels of the pictures that are turned."""
SCORED = ["logme", "ridge", "kernel_ridge", "alignment"]
PENALTIES = np.logspace(-1, 6, 15)


def turned(images: Target, count: int, seed: int = 0) -> tuple[Target, dict[str, tuple[str, np.ndarray]]]:
    """Return pictures that are turned at random, and what is to be learnt of them, with its task, by name."""
    rng = np.random.default_rng(seed)
    drawn = images.subset(rng.permutation(len(images))[:count])
    angles = rng.uniform(-FURTHEST, FURTHEST, len(drawn))
    pixels = []
    for place, angle in enumerate(angles):
        picture = drawn.image(place)
        assert isinstance(picture, Image.Image)
        pixels.append(np.asarray(picture.resize((SIDE, SIDE)).rotate(angle, fillcolor=(128, 128, 128))))
    stacked = np.stack(pixels)
    digits = drawn.labels
    shown = np.column_stack([digits % 2 == 1, digits > 4, digits % 3 == 0, angles > 0, np.abs(angles) > FURTHEST / 2])
    tasks = {
        "angle": ("regression", angles),
        "sine and cosine of the angle": ("regression", _both(angles)),
        "mean brightness": ("regression", stacked.mean(axis=(1, 2, 3))),
        "five labels": ("multi-label", shown),
    }
    return load_target((stacked, digits)), tasks


def _both(angles: np.ndarray) -> np.ndarray:
    radians = np.deg2rad(angles)
    return np.column_stack([np.sin(radians), np.cos(radians)])


def tested(features: np.ndarray, truth: np.ndarray, task: str, half: int) -> float:
    """Return R² or mean average precision on the second half of a ridge fitted to the first half."""
    model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(features[:half], truth[:half].astype(float))
    predicted = model.predict(features[half:])
    if task == "regression":
        return float(r2_score(truth[half:], predicted))
    return float(average_precision_score(truth[half:], predicted, average="macro"))


def judged(
    source: Source, images: Target, tasks: dict[str, tuple[str, np.ndarray]], store: Store, half: int
) -> pd.DataFrame:
    """Return a row for each task and stage: scores on the first half, and what a head reaches on the second."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = source_features(source, images, trust_code=True, store=store, device=device, batch_size=64)
    rows = []
    for name, (task, truth) in tasks.items():
        for depth, (layer, array) in enumerate(found.arrays.items(), 1):
            features = np.asarray(array if isinstance(array, np.ndarray) else array.cpu())
            scores = score(features[:half], truth[:half], SCORED, task=task).iloc[0]
            reached = tested(features, truth, task, half)
            rows.append(
                {"task": name, "source": source.name, "depth": depth, "layer": layer, **scores, "test": reached}
            )
    return pd.DataFrame(rows)


def page(rows: pd.DataFrame, images: int, side: int) -> str:
    """Return what is printed."""
    lines = [
        "# Numbers, and several labels an image",
        "",
        f"Scores on {images // 2} turned pictures, {rows['source'].nunique()} networks (the MobileNetV2 see {side} px, "
        "others 32), beside a ridge regression of scikit-learn that is fitted to the same pictures and tested on "
        f"{images - images // 2} others: R², of five labels the mean average precision. Spearman over depths is the "
        "mean over networks; best cut: the test figure at the depth that the score takes, and at the best depth, both "
        "means over networks.",
        "",
        "| task | score | Spearman over depths | over all cuts | best cut by score | best cut |",
        "|---|---|---|---|---|---|",
    ]
    for task, of_task in rows.groupby("task", sort=False):
        for name in SCORED:
            by_source = [part for _, part in of_task.groupby("source")]
            depths = np.mean([spearmanr(part[name], part["test"]).statistic for part in by_source])
            taken = np.mean([part["test"][part[name].idxmax()] for part in by_source])
            best = np.mean([part["test"].max() for part in by_source])
            overall = spearmanr(of_task[name], of_task["test"]).statistic
            lines.append(f"| {task} | {name} | {depths:.2f} | {overall:.2f} | {taken:.3f} | {best:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=800, help="half of them to score, half to test on")
    parser.add_argument("--networks", type=int, default=7, help="the first of those in the zoo")
    parser.add_argument("--side", type=int, default=96, help="pixels that the MobileNetV2 see")
    asked = parser.parse_args()
    if not (real := os.environ.get("TRANSFERSCOPE_REAL")):
        sys.exit("TRANSFERSCOPE_REAL names no folder with data/ and zoo/: nothing is measured")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        images, tasks = turned(unpacked(folder, Path(real), "sign-digits"), asked.images)
        sources = zoo(folder, Path(real) / "zoo", asked.side)[: asked.networks]
        store, half = Store(folder / "store"), len(images) // 2
        rows = pd.concat([judged(source, images, tasks, store, half) for source in sources], ignore_index=True)
    print(page(rows, len(images), asked.side))


if __name__ == "__main__":
    main()
