"""Tangent kernels of a cut network before it is trained: of what is drawn anew behind the cut, and of all of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from suffix_kernel.tangents import tangent_features
from torch import Tensor, nn

from transferscope.activations.stages import BATCH_NORMS
from transferscope.errors import InputError
from transferscope.networks.loading import Network
from transferscope.protocols.cutting.cut import cut

WIDTH = 256
"""Entries that the gradients of a weight are sketched to."""


@dataclass(frozen=True, eq=False)
class TangentKernels:
    """Inner products of gradients, image by image, centred; (n_samples, n_samples) float64 each.

    Attributes
    ----------
    suffix
        By the weights behind the cut, which are drawn anew: what `reinit` trains.
    whole
        By all weights: what `finetune` trains, or `scratch` for a cut at depth 0, where both are the same.
    """

    suffix: np.ndarray
    whole: np.ndarray


def tangent_kernels(
    network: Network,
    depth: int,
    batches: Callable[[], Iterable[Tensor]],
    *,
    seeds: Sequence[int] = (0,),
    width: int = WIDTH,
    device: torch.device | str = "cpu",
    trust_code: bool = False,
) -> TangentKernels:
    """Return the kernels of a network cut after its first `depth` stages, what follows drawn anew.

    The empirical neural tangent kernel (Jacot et al. 2018, arXiv 1806.07572) of one output of a new head. Both kernels
    come from one pass, in which the averages of batch norm are those of the images: behind the cut the source's would
    not fit, and training would soon replace them. `reinit` keeps those of the source before the cut, which is the one
    thing that its kernel leaves out of account.

    Parameters
    ----------
    network : Network
        The source, left as it is.
    depth : int
        Stages that are kept; 0 draws everything anew.
    batches : callable
        Returns the images anew at each call: (batch, 3, size, size) each.
    seeds : sequence of int
        Of what is drawn; kernels are means over them.
    width : int
        See `tangents.tangent_features`.
    device : torch.device or str
        Where the network runs.
    trust_code : bool
        As in `cut`.

    Raises
    ------
    InputError
        When there are no seeds, or no two images in a batch; as in `cut`.
    SourceError
        As in `cut`.
    """
    if not len(seeds):
        raise InputError("Expected `seeds` to hold at least one seed, but got none")
    suffix = whole = np.zeros(())
    for seed in seeds:
        net = cut(network, depth, "finetune" if depth else "scratch", 2, seed=seed, trust_code=trust_code).to(device)
        settle_averages(net, (batch.to(device) for batch in batches()))
        features = tangent_features(net, (batch.to(device) for batch in batches()), width=width, seed=seed)
        kept = {name for names in list(net.stage_parameters().values())[:depth] for name in names}
        grams = [_gram(blocks) for blocks in _parted(net, features, kept)]
        suffix = suffix + grams[0] / len(seeds)
        whole = whole + sum(grams) / len(seeds)
    return TangentKernels(suffix, whole)


def _parted(net: nn.Module, features: dict[str, Tensor], kept: set[str]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the features of modules with weights that are not `kept`, and of the others."""
    behind: list[Tensor] = []
    before: list[Tensor] = []
    for name, block in features.items():
        own = {f"{name}.{weight}".lstrip(".") for weight, _ in net.get_submodule(name).named_parameters()}
        (before if own <= kept else behind).append(block)
    return behind, before


def _gram(blocks: list[Tensor]) -> np.ndarray:
    """Sum the inner products of centred features, block by block."""
    total = torch.zeros((), dtype=torch.float64)
    for block in blocks:
        centred = (block - block.mean(dim=0)).double()
        total = total.to(block.device) + centred @ centred.mT
    return total.cpu().numpy()


def settle_averages(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running averages of batch norm to those of the images; the network ends in evaluation mode.

    They are means over batches. One with a single image, which batch norm behind global pooling cannot take, is passed
    over.

    Raises
    ------
    InputError
        When there is batch norm but no batch with two images.
    """
    net.eval()
    settled = [module for module in net.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    if not settled:
        return
    momenta = [module.momentum for module in settled]
    seen = 0
    for module in settled:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
        module.train()
    with torch.no_grad():
        for batch in batches:
            if len(batch) > 1:
                net(batch)
                seen += 1
    for module, momentum in zip(settled, momenta, strict=True):
        module.momentum = momentum
        module.eval()
    if not seen:
        raise InputError("Expected `batches` to hold at least two images each, for batch norm, but none does")
