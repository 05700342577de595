"""The features of a source of a zoo: the one way in which every verb asks for them."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from transferscope.activations.features import LayerFeatures, layer_features
from transferscope.data.images import Transform
from transferscope.data.shared import SharedPixels
from transferscope.data.target import Target
from transferscope.networks import loading
from transferscope.networks.loading import Network
from transferscope.networks.zoo import Source
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.store import Store


def source_features(
    source: Source | Network,
    images: Target,
    *,
    seed: int = 0,
    trust_code: bool = False,
    store: Store,
    device: torch.device,
    batch_size: int,
    report: Report = silent,
    prepare: Callable[[np.ndarray], Iterable[torch.Tensor]] | None = None,
    load: Callable[[], Network] | None = None,
    pixels: SharedPixels | None = None,
    part: slice | None = None,
) -> LayerFeatures:
    """Return the features of a source on `images`, at its layers; what the cache knows is not computed again.

    Parameters
    ----------
    source : Source or Network
        An entry of a zoo, which is loaded only when there are images to run; or a network that was loaded from one.
    images : Target
        The images.
    seed, trust_code
        As in `loading.load_network`; a network has been loaded with its own.
    store, device, batch_size, report, prepare, pixels, part
        As in `layer_features`.
    load : callable, optional
        Loads the entry's network, in place of `loading.load_network`.

    Raises
    ------
    InputError, SourceError
        As `loading.load_network`.
    CaptureError
        As `capture.collect`.
    """
    entry, drawn_by = (source.source, source.seed) if isinstance(source, Network) else (source, seed)

    def build() -> tuple[nn.Module, Transform]:
        if isinstance(source, Network):
            network = source
        else:
            network = loading.load_network(source, seed=seed, trust_code=trust_code) if load is None else load()
        return network.module, network.transform

    return layer_features(
        build, loading.identity(entry, drawn_by), entry.layers, images,
        store=store, device=device, batch_size=batch_size, report=report, prepare=prepare,
        pixels=pixels,
        part=part,
    )  # fmt: skip
