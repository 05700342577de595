"""Advice made on the spot, for the tests of the result and of everything that shows it."""

from transferscope.results.advice import Advice, Change, Way
from transferscope.results.summary import TargetSummary


def way(protocol, accuracy, seconds, **more):
    depth, layer = (0, "") if protocol == "scratch" else (3, "blocks.[red]2")
    told = {"kwh": seconds * 1e-6, "kgco2e": seconds * 5e-7, "trials": 1, **more}
    return Way(protocol, depth, layer, accuracy, (accuracy - 0.1, accuracy + 0.05), seconds, **told)


ADVICE = Advice(
    target=TargetSummary("data", 60, 4, "abc"),
    source="net",
    depths=7,
    samples=100,
    tolerance=0.02,
    ways=(
        way("truncate", 0.7, 1.5, trials=5), way("fne", 0.71, 1.0), way("toptuning", 0.79, 2.0, trials=21),
        way("reinit", 0.75, 400.0), way("defrost", 0.77, 500.0), way("finetune", 0.8, 1234.5),
        way("scratch", 0.4, 2000.0),
    ),
    advised="toptuning",
    changes=(Change((40, 50), "toptuning", "finetune"),),
    looked_at=(15, 300),
    energy="Energy is an estimate.",
    measured_seconds=12.34,
)  # fmt: skip
