"""A single transfer: by which protocol, of what, where cut, trained on which draw of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["features", "embedding", "trained"]


LAYER_SETS = ("all", "upper 75%", "upper 50%", "upper 25%")
"""The layers that a full-network embedding is made of; what `Run.layer` says for it."""


@dataclass(frozen=True)
class Protocol:
    """A way to transfer a network.

    Attributes
    ----------
    name : str
        What the command line and the results call it.
    summary : str
        What it does, in one line.
    kind : {"features", "embedding", "trained"}
        Whether a classifier is fitted to the features of one cut, to those of many layers, or a network is trained.
    depths : {"cuts", "frozen", "whole", "none"}
        How many stages it may keep: 1 to all; 0 to all; always all; always 0.
    """

    name: str
    summary: str
    kind: Kind
    depths: Literal["cuts", "frozen", "whole", "none"]


# Cheap ones first: this is also the order in which a grid is run.
_ALL = (
    Protocol("nearest_mean", "cut and frozen; nearest class mean on the features", "features", "cuts"),
    Protocol("truncate", "cut and frozen; logistic regression on the features", "features", "cuts"),
    Protocol("svm", "cut and frozen; linear support vector machine on the features", "features", "cuts"),
    Protocol("toptuning", "cut and frozen; Gaussian kernel ridge regression on the features", "features", "cuts"),
    Protocol("fne", "frozen; features of many layers, made ternary, under a linear SVM", "embedding", "whole"),
    Protocol("reinit", "cut and frozen; what follows is re-initialised and trained", "trained", "cuts"),
    Protocol("finetune", "cut; what follows is re-initialised, and everything is trained", "trained", "cuts"),
    Protocol("defrost", "the whole network, its first stages frozen, the others trained", "trained", "frozen"),
    Protocol("surgical", "the whole network trained, with a learning rate for each stage", "trained", "whole"),
    Protocol("scratch", "the same architecture, re-initialised and trained", "trained", "none"),
)  # fmt: skip
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
"""By name."""


@dataclass(frozen=True)
class Run:
    """One transfer.

    Attributes
    ----------
    source, target : str
        Their names.
    protocol : str
        One of `PROTOCOLS`.
    depth, depths : int
        Stages that are kept (or frozen), and stages in all.
    layer : str
        Where the cut lies; the set of layers for ``fne``; empty at depth 0.
    samples_per_class : int
        Training images of each class, at most.
    seed : int
        Decides the draw of images and everything random about the transfer.
    """

    source: str
    target: str
    protocol: str
    depth: int
    depths: int
    layer: str
    samples_per_class: int
    seed: int

    @property
    def identity(self) -> tuple[str, str, int, str, int, int]:
        """What tells a run from the others of a table."""
        return self.source, self.protocol, self.depth, self.layer, self.samples_per_class, self.seed


def is_trained(protocol: str) -> bool:
    """Whether a protocol trains a network, rather than a classifier on its features."""
    return PROTOCOLS[protocol].kind == "trained"
