"""Small source networks of one architecture, trained here on real images, each with the weights it began with.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/sources.py OUT [NAME ...]

writes OUT/NAME.initial.safetensors, OUT/NAME.safetensors, OUT/NAME.json (what it was trained on, and how well) and
OUT/zoo.yaml; what is there already is not trained again. A source is trained on the set's own `train` split where there
is one, else on all of its images, a tenth set aside. `random-labels` are images of CIFAR-10 whose labels were permuted.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from transferscope import load_target
from transferscope.images import Transform
from transferscope.measurement.bank import Bank
from transferscope.networks import CompactResNet
from transferscope.protocols.recipe import Recipe
from transferscope.protocols.training import fit
from transferscope.seeding import seeded

SOURCES = ("gtsrb", "cifar10", "mnist", "sign-digits", "pacs-photo", "omniglot", "random-labels")
IMAGES_OF = {"random-labels": "cifar10"}
SEED, WIDTH = 0, 8
TRANSFORM = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
VIEWS = 150_000
"""Training images that go through a network, each as often as it does: as much training for small sets as for large."""


def recipe(epochs: int) -> Recipe:
    return Recipe(epochs=epochs, batch_size=64, learning_rate=0.1, patience=epochs, budget_s=1e9)


def unpack(real: Path, name: str, folder: Path) -> Path:
    with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def train(images: Path, name: str, out: Path, width: int, epochs: int | None) -> dict[str, object]:
    """Train one source and return what is known of it."""
    target = load_target(images)
    indices = np.flatnonzero(np.array(target.split) == "train") if "train" in target.split else np.arange(len(target))
    bank = Bank(target, Transform(**TRANSFORM))
    bank.add(indices)
    pictures, labels = bank.images(indices), torch.from_numpy(target.labels[indices])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    if name == "random-labels":
        labels = labels[order]
    with seeded(SEED):
        net = CompactResNet(len(target.classes), width=width)
    save_file(net.state_dict(), out / f"{name}.initial.safetensors")
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[order[: len(labels) // 10]] = True
    chosen = recipe(epochs or max(10, round(VIEWS / int((~held_out).sum()))))
    started = time.monotonic()
    # With random labels the loss on others only grows: the last weights are kept.
    validation = None if name == "random-labels" else (pictures[held_out], labels[held_out])
    record = fit(net, pictures[~held_out], labels[~held_out], validation, recipe=chosen, seed=SEED)
    save_file(net.state_dict(), out / f"{name}.safetensors")
    return {
        "classes": len(target.classes), "images": int((~held_out).sum()), "seconds": time.monotonic() - started,
        "accuracy": record.validation_accuracy if validation else None, "recipe": asdict(chosen), "seed": SEED,
        "width": width,
    }  # fmt: skip


def prepare(real: Path, out: Path, names: Sequence[str], *, width: int = WIDTH, epochs: int | None = None) -> Path:
    """Train the sources that are not there yet, and return the path of their zoo."""
    out.mkdir(parents=True, exist_ok=True)
    sources = []
    for name in names:
        facts = out / f"{name}.json"
        if not facts.exists():
            with tempfile.TemporaryDirectory() as folder:
                images = unpack(real, IMAGES_OF.get(name, name), Path(folder))
                facts.write_text(json.dumps(train(images, name, out, width, epochs), indent=1))
        known = json.loads(facts.read_text())
        print(f"{name}: {known['images']} images, validation accuracy {known['accuracy']}", file=sys.stderr, flush=True)
        sources.append({
            "name": name, "loader": "python", "factory": f"{Path(__file__).resolve().with_name('network.py')}:build",
            "checkpoint": f"{name}.safetensors", "initial": f"{name}.initial.safetensors",
            "kwargs": {"classes": known["classes"], "width": known["width"]}, "transform": TRANSFORM,
            "layers": ["stem", "blocks.*"],
        })  # fmt: skip
    zoo = out / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"version": 1, "sources": sources}, sort_keys=False))
    return zoo


def real_data() -> Path:
    """Return the folder with real data, or stop."""
    folder = os.environ.get("TRANSFERSCOPE_REAL")
    if not folder:
        sys.exit("Set TRANSFERSCOPE_REAL to the folder with real data.")
    return Path(folder)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Name a folder for the networks.")
    prepare(real_data(), Path(sys.argv[1]), sys.argv[2:] or SOURCES)
