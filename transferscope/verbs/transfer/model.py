"""A delivered model: images in, labels and probabilities out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.data.unlabelled import Unlabelled, unlabelled
from transferscope.errors import InputError, check_whole
from transferscope.protocols.delivery.export import FORMATS, check_formats
from transferscope.protocols.delivery.export import export as exported
from transferscope.protocols.delivery.network import DeliveredNetwork
from transferscope.results.files import write_file
from transferscope.results.predictions import Predictions
from transferscope.results.transfer import Transfer, read_card
from transferscope.runtime.failures import Failure
from transferscope.runtime.metrics import outputs
from transferscope.runtime.progress import Reporter
from transferscope.verbs.transfer.model_files import ModelRecipe, load_model

_NAMED = 5
"""Unreadable images that an error names."""


class TransferredModel:
    """What a transfer has delivered. Made by `load_transfer`.

    Attributes
    ----------
    folder : pathlib.Path
        Where it lies.
    network : DeliveredNetwork
        A `torch.nn.Module` from images (n, channels, height, width), as `transform` makes them, to logits
        (n, n_classes); its `probabilities` are the softmax of these, of several labels the sigmoid. Of a regression it
        puts out numbers.
    device : torch.device
        Where the network is.
    """

    def __init__(self, folder: Path, recipe: ModelRecipe, network: DeliveredNetwork, device: torch.device) -> None:
        self.folder = folder
        self.network = network.to(device)
        self.device = device
        self._recipe = recipe

    def __repr__(self) -> str:
        card = self.card
        what, metric = outputs(card.task, len(self.classes)), card.metric
        return f"<model of {card.source} for {card.target.name}: {what}, {metric.title} {card.reached:.3f}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, labels or numbers, in the order of the probabilities."""
        return self._recipe.classes

    @property
    def transform(self) -> Transform:
        """From an image to the network's input."""
        return self._recipe.transform

    @property
    def card(self) -> Transfer:
        """What is known of the model: the result of its transfer."""
        return read_card(self.folder)

    def predict(self, images: Any, *, batch_size: int = 64, progress: bool = True) -> Predictions:
        """Return a label and probabilities for each image; all labels, or numbers, where it was trained for these.

        Parameters
        ----------
        images
            A folder, whose image files are taken at any depth; an image file; a sequence of files and folders; an array
            or tensor (N, H, W), (N, H, W, C) or (N, C, H, W) of uint8, or floats in [0, 1], not normalised; a map
            dataset of images, or of tuples or dicts with one; a `Target`.
        batch_size : int
            Images in one forward pass.
        progress : bool
            Whether to draw a progress bar on stderr when it is a terminal.

        Returns
        -------
        Predictions
            In the order of the images. Those that cannot be read are listed in its `unreadable`.

        Raises
        ------
        InputError
            `images` is something else, or not one of them can be read.
        """
        batch_size = check_whole("batch_size", batch_size, 1)
        pictures = unlabelled(images, self._recipe.reading)
        names: list[str] = []
        unreadable: list[Failure] = []
        rows = [np.empty((0, len(self.classes)), dtype=np.float32)]
        with Reporter(progress).bar("predicting") as report:
            for start in range(0, len(pictures), batch_size):
                places = range(start, min(start + batch_size, len(pictures)))
                batch = list(self._inputs(pictures, places, names, unreadable))
                if batch:
                    rows.append(self.network.probabilities(torch.stack(batch)).cpu().numpy())
                report(places.stop, len(pictures))
        if not names:
            named = "; ".join(f"{each.source}: {each.error}" for each in unreadable[:_NAMED])
            raise InputError(
                f"Expected images that can be read, but none of {len(unreadable)} can: {named}"
                f"{'; …' if len(unreadable) > _NAMED else ''}"
            )
        return Predictions(tuple(names), self.classes, np.concatenate(rows), tuple(unreadable), self._recipe.task)

    def _inputs(
        self, pictures: Unlabelled, places: Sequence[int], names: list[str], unreadable: list[Failure]
    ) -> Iterator[torch.Tensor]:
        for place in places:
            name = pictures.names[place]
            try:
                image = self.transform(pictures.image(place))
            except (InputError, OSError) as error:
                unreadable.append(Failure(name, " ".join(str(error).split())))
                continue
            names.append(name)
            yield image

    def export(self, format: str, path: str | Path | None = None) -> Path:
        """Write the network to a file that runs without this package, and return its path.

        It takes ``images`` (n, channels, height, width) float32 as `transform` makes them, any number, and gives their
        ``probabilities`` (n, n_classes). It was run on noise, and gave what the network gives up to 1e-4.

        Parameters
        ----------
        format : {"onnx", "torchscript"}
            The first needs ``pip install 'transferscope[onnx]'``.
        path : path, optional
            By default model.onnx or model.torchscript.pt in the folder of the model.

        Raises
        ------
        InputError
            There is no such format, or the file cannot be written.
        SourceError
            The network cannot be exported so.
        """
        check_formats([format])
        noise = torch.randn(3, *self.transform.shape, generator=torch.Generator().manual_seed(0))
        try:
            data = exported(self.network.cpu(), format, noise)
        finally:
            self.network.to(self.device)
        return write_file(self.folder / FORMATS[format] if path is None else path, data)


def load_transfer(folder: str | Path, *, device: str = "auto", trust_code: bool = False) -> TransferredModel:
    """Load the model in a folder that `transfer` has written. Nothing is downloaded.

    Parameters
    ----------
    folder : path
        The folder.
    device : str
        Where it runs: "auto", "cpu", "cuda" or "cuda:N".
    trust_code : bool
        Allow to run the code of a factory, of which the folder holds a copy.

    Raises
    ------
    InputError
        The folder holds no model, or its code is not trusted.
    SourceError
        The network cannot be built, for lack of its library say.
    DeviceError
        When the device does not exist.
    """
    where = backend.resolve_device(device)
    folder = Path(folder)
    recipe, network = load_model(folder, trust_code=trust_code)
    return TransferredModel(folder, recipe, network, where)
