"""The folder of a model: what predictions are made from, written and read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from transferscope.data.images import Transform
from transferscope.data.reading import Reading
from transferscope.errors import InputError, SourceError
from transferscope.networks import loading
from transferscope.networks.blueprint import COMPACT, source_of
from transferscope.protocols.delivery.network import DeliveredNetwork, Form, delivered
from transferscope.results.files import prepare_folder, write_together
from transferscope.runtime.metrics import CLASSIFICATION, check_task
from transferscope.runtime.regular import read_regular

SCHEMA_VERSION = 1

RECIPE, WEIGHTS = "model.json", "model.safetensors"


@dataclass(frozen=True)
class ModelRecipe:
    """What a model is, beside its weights: enough to build it again without the zoo.

    Attributes
    ----------
    classes
        Names, in the order of the probabilities.
    transform
        From an image to the network's input.
    reading
        How the numbers of an image become 8 bits.
    architecture
        Entry of a `networks.blueprint.Blueprint`.
    form
        What is kept of it.
    task
        What it predicts: classes, labels or numbers.
    """

    classes: tuple[str, ...]
    transform: Transform
    reading: Reading
    architecture: Mapping[str, Any]
    form: Form
    task: str = CLASSIFICATION

    def to_json(self) -> str:
        """Return what model.json holds."""
        head = None if self.form.head is None else {name: list(shape) for name, shape in self.form.head.items()}
        record = {
            "schema_version": SCHEMA_VERSION,
            "classes": list(self.classes),
            "transform": asdict(self.transform),
            "reading": asdict(self.reading),
            "architecture": dict(self.architecture),
            "layers": list(self.form.layers),
            "head": head,
            **({} if self.task == CLASSIFICATION else {"task": self.task}),
        }
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "ModelRecipe":
        """Return the recipe in the folder of a model; raise InputError when there is none."""
        try:
            record = json.loads(read_regular(folder / RECIPE))
            if record["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"its schema_version is {record['schema_version']!r}, not {SCHEMA_VERSION}")
            options: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in record["transform"].items()
            }
            reading = {key: None if value is None else tuple(value) for key, value in record["reading"].items()}
            head = record["head"]
            shapes = None if head is None else {name: tuple(shape) for name, shape in head.items()}
            return cls(
                classes=tuple(record["classes"]),
                transform=Transform(**options),
                reading=Reading(**reading),
                architecture=record["architecture"],
                form=Form(tuple(record["layers"]), shapes),
                task=check_task(record.get("task", CLASSIFICATION)),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"Expected {folder} to be the folder of a model, as `transfer -o` writes it, but its {RECIPE} cannot "
                f"be read ({error})"
            ) from error

    def build(self, folder: Path, *, trust_code: bool = False) -> DeliveredNetwork:
        """Build the network, its files being in `folder`, with weights that are drawn and a head that is not fitted.

        Nothing is downloaded, and no file of weights is read.

        Raises
        ------
        InputError, SourceError
            It runs code that is not trusted, or cannot be built.
        """
        source = source_of(self.architecture, folder, self.transform)
        own = self.architecture["loader"] == COMPACT
        network = loading.load_architecture(source, trust_code=trust_code or own)
        network.transform = self.transform
        return delivered(network, self.form, len(self.classes), self.task)


def load_model(folder: Path, *, trust_code: bool = False) -> tuple[ModelRecipe, DeliveredNetwork]:
    """Return the model in a folder, on the CPU, and what it is; nothing is downloaded.

    Raises
    ------
    InputError, SourceError
        As `ModelRecipe.read` and `ModelRecipe.build`; its weights cannot be read, or are those of another network.
    """
    recipe = ModelRecipe.read(folder)
    network, path = recipe.build(folder, trust_code=trust_code), folder / WEIGHTS
    try:
        weights = safetensors.torch.load_file(path)
        network.load_state_dict(weights)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"The weights in {path} are not those of the network that {RECIPE} describes ({said}); copy the whole "
            "folder again, or use the versions of the libraries that its card.json names"
        ) from error
    return recipe, network


def check_same_network(built: DeliveredNetwork, wanted: DeliveredNetwork, name: str) -> None:
    """Raise SourceError unless a network that was built from a recipe has the weights of the one that it is of."""
    given, asked = ({key: value.shape for key, value in net.body.state_dict().items()} for net in (built, wanted))
    if given != asked:
        differing = sorted({*given.items()} ^ {*asked.items()})[0][0]
        raise SourceError(
            f"source {name!r}: built without its weights it has other parameters than with them ({differing}), so that "
            "a model of it could not be loaded; have the factory return the same architecture every time"
        )


def sha256(data: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_model(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write all files of a model, by their path below its folder; model.json last, without which it is none.

    Raises
    ------
    InputError
        When they cannot be written.
    """
    prepare_folder(folder)
    names = sorted(files, key=RECIPE.__eq__)
    return write_together(folder, {name: files[name] for name in names})
