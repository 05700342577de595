"""How much work a transfer is: how often its images pass through the network, forward alone or forward and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transferscope.protocols.training.recipe import Recipe
from transferscope.verbs.running.run import is_trained


@dataclass(frozen=True)
class Work:
    """Passes of one image through a whole network, shares of passes added up.

    Attributes
    ----------
    steps
        Forward and back, as in training.
    forwards
        Forward alone.
    """

    steps: float
    forwards: float


def work(protocol: str, depth: int, flops: Sequence[float], samples: int, recipe: Recipe | None) -> Work:
    """Return the work of a transfer without its test, and without the head of one that trains no network.

    Parameters
    ----------
    protocol : str
        In `run.PROTOCOLS`.
    depth : int
        Stages that are kept or frozen.
    flops : sequence of float
        Up to each stage of the source, for one image; where the last is unknown (NaN), stages count alike.
    samples : int
        Images that are trained on.
    recipe : Recipe or None
        Of what is trained; None for a head on features.
    """
    before = 0.0 if depth == 0 else depth / len(flops) if math.isnan(flops[-1]) else flops[depth - 1] / flops[-1]
    if recipe is None or not is_trained(protocol):
        return Work(0.0, samples * before)
    # Behind a frozen prefix only what follows is trained, on what the prefix makes of some views of the images.
    frozen = before if protocol in ("reinit", "defrost") else 0.0
    return Work((1 - frozen) * samples * recipe.most_epochs(samples), frozen * samples * recipe.kept_views(samples))
