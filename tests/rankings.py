"""Rankings made on the spot, for the tests of everything that shows them."""

from dataclasses import replace

import numpy as np
from beliefs import fixed_belief

from transferscope.activations.stages import Stage
from transferscope.prediction.selection import ScratchCandidate, recommend
from transferscope.results import labelled
from transferscope.results.labelled import BASELINES, SIMILARITIES, SourceScores
from transferscope.results.ranking import Ranking
from transferscope.results.summary import Reference, TargetSummary
from transferscope.runtime.failures import Failure

NAMES = ("linear_cka_to_scratch", "svcca_to_scratch", "logme", "hscore", "ridge")
AWKWARD = ["大猫 ñandú", r"$\frac$", "a$b$c", "_hidden", "net[bold]", "[/red]", ":smile:", r"back\[slash]", "50 %{x}"]


def make_ranking(ridge, *, others=None, scratch=0.5, n_samples=1000, more=None, errors=None, baselines=None, **changes):
    """Return the ranking of sources, truncated, with the given expected accuracies by depth.

    Those by `others` come beside them: protocol to source to accuracies by depth, NaN where nothing is expected. `more`
    scores, standard `errors` and `baselines` come with it: name to a number for all.
    """
    rng = np.random.default_rng(0)
    units = []
    for source, accuracies in ridge.items():
        depths = len(accuracies)
        units.append(
            SourceScores(
                source,
                tuple(Stage(f"blocks.{i}", (8,), 1000 * (i + 1), 90000 * (i + 1)) for i in range(depths)),
                ("stem", "head"),
                {"ridge": np.array(accuracies), "logme": -rng.random(depths), "hscore": rng.random(depths)}
                | {name: np.full(depths, value) for name, value in (more or {}).items()},
                {name: rng.uniform(-0.1, 1, (depths, 2)) for name in SIMILARITIES},
                {name: np.full(depths, value) for name, value in (errors or {}).items()},
            )
        )
    attributes = {
        "target": "shells", "n_samples": n_samples, "seed": 0, "classes": 6, "samples": 2 * n_samples,
    }  # fmt: skip
    known = {name: [value] * len(units) for name, value in (baselines or {}).items()}
    candidate = None if scratch is None else ScratchCandidate("compact", scratch, 200, 8, 77000, 5000000)
    scores = labelled.to_dataset(units, attributes, known)
    protocols = {"truncate": ridge, **(others or {})}
    ways = {
        (source, depth, protocol): accuracy
        for protocol, sources in protocols.items()
        for source, accuracies in sources.items()
        for depth, accuracy in enumerate(accuracies, 1)
        if np.isfinite(accuracy)
    }
    ways[("", 0, "scratch")] = 0.5 if scratch is None else scratch
    belief = fixed_belief(ways)
    ends = belief.expected()
    nothing = scores["ridge"].expand_dims(protocol=list(protocols), axis=2) * np.nan
    scores = scores.assign({name: nothing.copy() for name in ends})
    for i, (source, depth, protocol) in enumerate(list(ways)[:-1]):
        for name in ends:
            scores[name].loc[{"source": source, "depth": depth, "protocol": protocol}] = ends[name].iloc[i]
    shown = [name for name in BASELINES if name in scores]
    ranking = Ranking(
        target=TargetSummary("shells", n_samples, 6, "0f" * 32),
        reference=Reference("compact residual network", scratch, 200, 680, 31, "early"),
        recommendations=recommend(scores, belief, labelled.score_names(scores), candidate, shown),
        scores=scores,
        failed=(Failure("gone", "No checkpoint at gone.pt."),),
    )
    return replace(ranking, **changes)
