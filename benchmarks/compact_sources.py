"""Small source networks of one architecture, trained here on real images, each with the weights it began with.

Needs TRANSFERSCOPE_REAL, a folder with `data/NAME.zip`; says so and stops without it.

    TRANSFERSCOPE_REAL=... python benchmarks/compact_sources.py OUT cifar10 gtsrb

writes OUT/NAME.initial.safetensors, OUT/NAME.safetensors and OUT/zoo.yaml; what is there already is not trained again.
Images are those of the set's own `train` split where there is one, else all.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
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

SEED = 0
TRANSFORM = {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
RECIPE = Recipe(epochs=30, batch_size=64, learning_rate=0.1, patience=30, budget_s=1e9)


def build(classes: int) -> CompactResNet:
    """Return the untrained network: the factory that the zoo names."""
    return CompactResNet(classes)


def unpack(real: Path, name: str, folder: Path) -> Path:
    with zipfile.ZipFile(real / "data" / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder / name


def train(images: Path, name: str, out: Path) -> dict[str, object]:
    """Train one source and return what is known of it."""
    target = load_target(images)
    indices = np.flatnonzero(np.array(target.split) == "train") if "train" in target.split else np.arange(len(target))
    bank = Bank(target, Transform(**TRANSFORM))
    bank.add(indices)
    pictures, labels = bank.images(indices), torch.from_numpy(target.labels[indices])
    with seeded(SEED):
        net = build(len(target.classes))
    save_file(net.state_dict(), out / f"{name}.initial.safetensors")
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))[: len(labels) // 10]] = True
    started = time.monotonic()
    record = fit(
        net, pictures[~held_out], labels[~held_out], (pictures[held_out], labels[held_out]), recipe=RECIPE, seed=SEED
    )
    save_file(net.state_dict(), out / f"{name}.safetensors")
    return {
        "classes": len(target.classes), "images": int((~held_out).sum()), "seconds": time.monotonic() - started,
        "accuracy": record.validation_accuracy, "recipe": asdict(RECIPE), "seed": SEED,
    }  # fmt: skip


def main() -> None:
    real = os.environ.get("TRANSFERSCOPE_REAL")
    if not real or len(sys.argv) < 3:
        sys.exit(
            "Set TRANSFERSCOPE_REAL to the folder with real data; name a folder for the networks and the image sets."
        )
    out, names = Path(sys.argv[1]), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    sources = []
    for name in names:
        facts = out / f"{name}.json"
        if not facts.exists():
            with tempfile.TemporaryDirectory() as folder:
                facts.write_text(json.dumps(train(unpack(Path(real), name, Path(folder)), name, out), indent=1))
        known = json.loads(facts.read_text())
        print(f"{name}: {known['images']} images, validation accuracy {known['accuracy']:.3f}", flush=True)
        sources.append({
            "name": name, "loader": "python", "factory": f"{Path(__file__).resolve()}:build",
            "checkpoint": f"{name}.safetensors", "initial": f"{name}.initial.safetensors",
            "kwargs": {"classes": known["classes"]}, "transform": TRANSFORM,
        })  # fmt: skip
    (out / "zoo.yaml").write_text(yaml.safe_dump({"version": 1, "sources": sources}, sort_keys=False))


if __name__ == "__main__":
    main()
