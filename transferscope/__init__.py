"""transferscope: which pretrained network to start from, cut where, adapted how, at what accuracy and cost.

>>> import transferscope as ts
>>> ranking = ts.rank("data/", "zoo.yaml")  # doctest: +SKIP
>>> ranking.best  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from transferscope import parameters, similarity, transferability
    from transferscope.activations import capture
    from transferscope.advice.advise import advise
    from transferscope.arrays import score
    from transferscope.comparison import compare
    from transferscope.data import Target, load_target
    from transferscope.measurement.measure import measure
    from transferscope.pairing import compare_sources
    from transferscope.pipeline import rank
    from transferscope.protocols.cuts import cut
    from transferscope.report import plot
    from transferscope.report.advice import Advice
    from transferscope.report.measurement import Measurement
    from transferscope.report.ranking import Ranking, load_ranking
    from transferscope.selection import Recommendation
    from transferscope.zoo import Zoo, load_zoo

_HOMES = {
    "Advice": "report.advice",
    "Measurement": "report.measurement",
    "Ranking": "report.ranking",
    "Recommendation": "selection",
    "Target": "data",
    "Zoo": "zoo",
    "advise": "advice.advise",
    "capture": "activations",
    "compare": "comparison",
    "compare_sources": "pairing",
    "cut": "protocols.cuts",
    "load_ranking": "report.ranking",
    "load_target": "data",
    "load_zoo": "zoo",
    "measure": "measurement.measure",
    "parameters": "parameters",
    "plot": "report.plot",
    "rank": "pipeline",
    "score": "arrays",
    "similarity": "similarity",
    "transferability": "transferability",
}
_ROOMS = ("parameters", "plot", "similarity", "transferability")

__all__ = [
    "Advice",
    "Measurement",
    "Ranking",
    "Recommendation",
    "Target",
    "Zoo",
    "advise",
    "capture",
    "compare",
    "compare_sources",
    "cut",
    "load_ranking",
    "load_target",
    "load_zoo",
    "measure",
    "parameters",
    "plot",
    "rank",
    "score",
    "similarity",
    "transferability",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: it is loaded when a name that needs it is first used.
    if name not in _HOMES:
        raise AttributeError(f"module 'transferscope' has no attribute {name!r}")
    module = importlib.import_module(f"transferscope.{_HOMES[name]}")
    value = module if name in _ROOMS else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
