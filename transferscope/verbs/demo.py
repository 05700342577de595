"""Everything that `transferscope demo` needs, made on the spot from scikit-learn's handwritten digits.

The target are the digits 1, 3, 5, 8 and 9, which are easily confused. Four small networks are trained on the other
digits: as they are, with inverted and turned images, under heavy noise, and with labels drawn at random.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from transferscope.errors import InputError, check_whole
from transferscope.networks.compact import CompactResNet
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.runtime.progress import Reporter
from transferscope.runtime.seeding import seeded
from transferscope.runtime.version import __version__

TARGET_DIGITS = (1, 3, 5, 8, 9)
SOURCE_DIGITS = (0, 2, 4, 6, 7)

SIDE = 32
"""Pixels to which the 8 × 8 digits are enlarged."""

_MARKER = ".transferscope-demo.json"
_RECIPE = Recipe(epochs=8, patience=8)
_FACTORY = '''"""The demo's own network architecture; zoo.yaml names `build` as its factory."""

from transferscope.networks import CompactResNet


def build() -> CompactResNet:
    """Return the untrained network: five classes, small images."""
    return CompactResNet(classes=5, stem_stride=2)
'''


def make_demo(folder: Path, *, seed: int = 0, progress: bool = True, say: Callable[[str], Any] = print) -> Path:
    """Write the demo's target folder, its trained sources and their zoo.yaml; return the path of zoo.yaml.

    What an earlier run of the same version and seed made is used again when all of it is still there.

    Parameters
    ----------
    folder : pathlib.Path
        New, empty, or made by an earlier demo.
    seed : int
        Decides initial weights, training and noise.
    progress : bool
        Whether to draw progress bars on stderr.
    say : callable
        Told in one line what is done.

    Raises
    ------
    InputError
        When the folder holds something else, or cannot be written.
    """
    mark = {"transferscope": __version__, "seed": check_whole("seed", seed, 0)}
    marker, zoo = folder / _MARKER, folder / "zoo.yaml"
    try:
        if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
            raise InputError(
                f"Expected {folder} to be a new or empty folder, or one made by the demo, but it holds other files; "
                "choose another one with -o"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if _is_finished(folder, mark):
            say(f"The images and networks of an earlier demo in {folder} are used again.")
            return zoo
        marker.write_text(json.dumps(mark))
        images, labels = _digits()
        target = np.isin(labels, TARGET_DIGITS)
        count = _write_target(folder / "target", images[target], labels[target])
        say(f"Wrote {count} images of the digits {', '.join(map(str, TARGET_DIGITS))} to {folder / 'target'}.")
        (folder / "networks.py").write_text(_FACTORY)
        entries = []
        reporter = Reporter(progress)
        for name, source_images, source_labels in _tasks(
            images[~target], np.searchsorted(SOURCE_DIGITS, labels[~target]), seed
        ):
            with reporter.bar(f"training {name}") as report:
                accuracy = _train_source(folder / f"{name}.safetensors", source_images, source_labels, seed, report)
            say(f"Trained {name} on {len(source_images)} images; accuracy on its own validation images {accuracy:.2f}.")
            entries.append(
                {
                    "name": name,
                    "loader": "python",
                    "factory": "networks.py:build",
                    "checkpoint": f"{name}.safetensors",
                    "transform": {"size": SIDE, "mean": [0.5] * 3, "std": [0.25] * 3},
                }
            )
        text = yaml.safe_dump({"version": 1, "sources": entries}, sort_keys=False)
        zoo.write_text(
            "# Four small networks, trained by `transferscope demo` on the digits that the target lacks.\n" + text
        )
        # The list of files comes last: without it an interrupted run starts over.
        made = [folder / "networks.py", zoo, *folder.glob("*.safetensors"), *(folder / "target").rglob("*.png")]
        marker.write_text(json.dumps({**mark, "files": sorted(path.relative_to(folder).as_posix() for path in made)}))
    except OSError as error:
        raise InputError(
            f"Expected the demo's folder to be writable, but {folder} is not ({error.strerror or error}); choose "
            "another one with -o"
        ) from error
    return zoo


def _is_finished(folder: Path, mark: dict[str, Any]) -> bool:
    try:
        recorded = json.loads((folder / _MARKER).read_text())
        files = recorded.pop("files")
    except (OSError, ValueError, KeyError):
        return False
    return recorded == mark and all((folder / file).is_file() for file in files)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits as (1797, 32, 32) uint8 images and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in small]
    return np.stack([np.asarray(image) for image in images]), digits.target


def _write_target(folder: Path, images: np.ndarray, labels: np.ndarray) -> int:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        class_folder = folder / str(label)
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(class_folder / f"{i:04d}.png")
    return len(images)


def _tasks(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 100, images.shape)
    yield "digits", images, labels
    yield "inverted-and-turned", 255 - np.rot90(images, axes=(1, 2)), labels
    yield "under-noise", np.clip(images + noise, 0, 255), labels
    yield "random-labels", images, rng.permutation(labels)


def _train_source(
    path: Path, images: np.ndarray, labels: np.ndarray, seed: int, report: Callable[[int, int], None]
) -> float:
    grey = torch.from_numpy(np.ascontiguousarray(images)).float().div(255).sub(0.5).div(0.25)
    rgb = grey[:, None].expand(-1, 3, -1, -1)
    classes = torch.from_numpy(labels)
    with seeded(seed):
        net = CompactResNet(classes=5, stem_stride=2)
    validation = np.arange(len(labels)) % 8 == 0
    record = fit(
        net,
        rgb[~validation],
        classes[~validation],
        (rgb[validation], classes[validation]),
        recipe=_RECIPE,
        seed=seed,
        on_epoch=report,
    )
    save_file(net.state_dict(), path)
    return record.validation_accuracy
