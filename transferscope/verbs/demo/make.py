"""Everything that `transferscope demo` needs, drawn and trained on the spot.

The target are ten Greek letters. Three small networks are trained on other pictures: groups of Latin letters, gratings,
and Latin letters whose labels are drawn at random. The first of them is the one to find. Its last layer
brings an image down to 16 numbers, which know the groups: earlier ones tell Greek letters apart better.
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
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import fit
from transferscope.runtime.progress import Reporter
from transferscope.runtime.seeding import seeded
from transferscope.runtime.version import __version__
from transferscope.verbs.demo import network
from transferscope.verbs.demo.letters import SIDE, gratings, letters

GREEK = {
    "beta": "β", "gamma": "γ", "delta": "δ", "zeta": "ζ", "theta": "θ", "lambda": "λ", "xi": "ξ", "pi": "π",
    "sigma": "σ", "psi": "ψ",
}  # fmt: skip
"""The classes of the target, and what is drawn."""
PER_CLASS = 60
SHOTS = 8
"""Images of each class that transfers are trained on, of `PER_CLASS`."""

_LATIN = "ABDEFGHJKLMNQRSTWXYZ234567"
_GROUPS = 8
_PER_LETTER, _PER_GRATING = 100, 40
_RECIPE = Recipe(epochs=8, patience=8, optimiser="muon")
_MARKER = ".transferscope-demo.json"


def make_demo(folder: Path, *, seed: int = 0, progress: bool = True, say: Callable[[str], Any] = print) -> Path:
    """Write the demo's target folder, its trained sources and their zoo.yaml; return the path of zoo.yaml.

    What an earlier run of the same version and seed made is used again when all of it is still there.

    Parameters
    ----------
    folder : pathlib.Path
        New, empty, or made by an earlier demo.
    seed : int
        Decides the pictures, initial weights and training.
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
        count = _write_target(folder / "target", seed)
        say(f"Drew {count} images of {len(GREEK)} Greek letters: {folder / 'target'}.")
        (folder / "networks.py").write_text(Path(network.__file__).read_text())
        entries: list[dict[str, Any]] = []
        reporter = Reporter(progress)
        for name, what, pictures, labels in _tasks(seed):
            classes = int(labels.max()) + 1
            with reporter.bar(f"training {name}") as report:
                accuracy = _train_source(folder / f"{name}.safetensors", pictures, labels, seed, report)
            say(
                f"Trained {name} on {len(pictures)} images of {what}; accuracy on its own validation images "
                f"{accuracy:.2f}."
            )
            entries.append(_entry(name, classes))
        text = yaml.safe_dump({"version": 1, "sources": entries}, sort_keys=False)
        zoo.write_text(f"# Three small networks, trained by `transferscope demo`.\n{text}")
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


def _write_target(folder: Path, seed: int) -> int:
    names = list(GREEK)
    pictures, classes = letters(list(GREEK.values()), PER_CLASS, seed=_drawn_by(seed, 0))
    for number, (picture, label) in enumerate(zip(pictures, classes, strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number:04d}.png")
    return len(pictures)


def _drawn_by(seed: int, part: int) -> int:
    """Return the seed of a part, so that no two of them are drawn by the same numbers."""
    return 3 * seed + part


def _tasks(seed: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield of each source its name, what is on its pictures, the pictures and their labels."""
    draw = np.random.default_rng(seed)
    pictures, classes = letters(_LATIN, _PER_LETTER, seed=_drawn_by(seed, 1))
    groups = draw.permutation(np.arange(len(_LATIN)) % _GROUPS)
    yield "letter-groups", f"Latin letters in {_GROUPS} groups", pictures, groups[classes]
    yield "gratings", "gratings", *gratings(_PER_GRATING, seed=_drawn_by(seed, 2))
    half = slice(None, None, 2)
    yield "random-labels", "Latin letters with random labels", pictures[half], draw.permutation(classes[half])


def _entry(name: str, classes: int) -> dict[str, Any]:
    return {
        "name": name,
        "loader": "python",
        "factory": "networks.py:build",
        "kwargs": {"classes": classes},
        "checkpoint": f"{name}.safetensors",
        "transform": {"size": SIDE, "mean": [0.5] * 3, "std": [0.25] * 3},
    }


def _train_source(
    path: Path, pictures: np.ndarray, labels: np.ndarray, seed: int, report: Callable[[int, int], None]
) -> float:
    """Train a source and write its weights; return its accuracy on each eighth picture, which are held out."""
    grey = torch.from_numpy(np.ascontiguousarray(pictures)).float().div(255).sub(0.5).div(0.25)
    rgb, classes = grey[:, None].expand(-1, 3, -1, -1), torch.from_numpy(labels)
    with seeded(seed):
        net = network.build(int(labels.max()) + 1)
    held_out = np.arange(len(labels)) % 8 == 0
    record = fit(
        net,
        rgb[~held_out],
        classes[~held_out],
        (rgb[held_out], classes[held_out]),
        recipe=_RECIPE,
        seed=seed,
        on_epoch=report,
    )
    save_file(net.state_dict(), path)
    return record.validation_accuracy
