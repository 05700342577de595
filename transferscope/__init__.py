"""transferscope: which pretrained network to start from, cut where, adapted how, at what accuracy and cost.

>>> import transferscope as ts
>>> ranking = ts.rank("data/", "zoo.yaml")  # doctest: +SKIP
>>> ranking.best  # doctest: +SKIP
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from transferscope.runtime.version import __version__ as __version__

if TYPE_CHECKING:
    from transferscope import similarity, transferability
    from transferscope.activations.capture import capture
    from transferscope.data.target import Target, load_target
    from transferscope.networks.loading import load_network
    from transferscope.networks.zoo import Zoo, load_zoo
    from transferscope.protocols.cutting.cut import cut
    from transferscope.protocols.training.recipe import Recipe
    from transferscope.report import plot
    from transferscope.results.advice import Advice
    from transferscope.results.measurement import Measurement
    from transferscope.results.predictions import Predictions
    from transferscope.results.ranking import Ranking, load_ranking
    from transferscope.results.recommendation import Recommendation
    from transferscope.results.transfer import Transfer
    from transferscope.verbs import parameters
    from transferscope.verbs.advise.advise import advise
    from transferscope.verbs.calibrate import calibrate
    from transferscope.verbs.compare.networks import compare
    from transferscope.verbs.compare.sources import compare_sources
    from transferscope.verbs.measure.measure import measure
    from transferscope.verbs.rank.rank import rank
    from transferscope.verbs.score import score
    from transferscope.verbs.transfer.model import TransferredModel, load_transfer
    from transferscope.verbs.transfer.transfer import transfer

_HOMES = {
    "Advice": "results.advice",
    "Measurement": "results.measurement",
    "Predictions": "results.predictions",
    "Ranking": "results.ranking",
    "Recipe": "protocols.training.recipe",
    "Recommendation": "results.recommendation",
    "Target": "data.target",
    "Transfer": "results.transfer",
    "TransferredModel": "verbs.transfer.model",
    "Zoo": "networks.zoo",
    "advise": "verbs.advise.advise",
    "calibrate": "verbs.calibrate",
    "capture": "activations.capture",
    "compare": "verbs.compare.networks",
    "compare_sources": "verbs.compare.sources",
    "cut": "protocols.cutting.cut",
    "load_network": "networks.loading",
    "load_ranking": "results.ranking",
    "load_target": "data.target",
    "load_transfer": "verbs.transfer.model",
    "load_zoo": "networks.zoo",
    "measure": "verbs.measure.measure",
    "parameters": "verbs.parameters",
    "plot": "report.plot",
    "rank": "verbs.rank.rank",
    "score": "verbs.score",
    "similarity": "similarity",
    "transfer": "verbs.transfer.transfer",
    "transferability": "transferability",
}
_MODULES = ("parameters", "plot", "similarity", "transferability")

__all__ = [
    "Advice",
    "Measurement",
    "Predictions",
    "Ranking",
    "Recipe",
    "Recommendation",
    "Target",
    "Transfer",
    "TransferredModel",
    "Zoo",
    "advise",
    "calibrate",
    "capture",
    "compare",
    "compare_sources",
    "cut",
    "load_network",
    "load_ranking",
    "load_target",
    "load_transfer",
    "load_zoo",
    "measure",
    "parameters",
    "plot",
    "rank",
    "score",
    "similarity",
    "transfer",
    "transferability",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: it is loaded when a name that needs it is first used.
    if name not in _HOMES:
        raise AttributeError(f"module 'transferscope' has no attribute {name!r}")
    module = importlib.import_module(f"transferscope.{_HOMES[name]}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Parameters(ModuleType):
    """`import transferscope.parameters` for what lives with the other verbs, loaded when it is first used."""

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules, as `inspect` does, must not import it.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        sys.modules[self.__name__] = module = importlib.import_module("transferscope.verbs.parameters")
        return getattr(module, name)


_alias = _Parameters("transferscope.parameters", "Stands for `transferscope.verbs.parameters` until it is first used.")
_alias.__spec__ = ModuleSpec(_alias.__name__, None)
sys.modules[_alias.__name__] = _alias
