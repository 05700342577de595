"""What scores there are: name, source, direction, range, needs and cost of each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from transferscope.errors import InputError, near
from transferscope.transferability.alignment import alignment, alignment_from_layer
from transferscope.transferability.effective_rank import effective_rank, effective_rank_from_layer
from transferscope.transferability.gbc import gbc, gbc_from_layer
from transferscope.transferability.hscore import hscore, hscore_from_layer
from transferscope.transferability.kernel_ridge import kernel_ridge, kernel_ridge_from_layer
from transferscope.transferability.knn import knn, knn_from_layer, nearest_mean, nearest_mean_from_layer
from transferscope.transferability.leep import leep, nce
from transferscope.transferability.logme import logme, logme_from_layer
from transferscope.transferability.nleep import nleep, nleep_from_layer
from transferscope.transferability.parc import parc, parc_from_layer
from transferscope.transferability.ridge import ridge, ridge_from_layer
from transferscope.transferability.sfda import sfda, sfda_from_layer
from transferscope.transferability.transrate import transrate, transrate_from_layer


@dataclass(frozen=True)
class Score:
    """A transferability score. Every one is unchanged by another order of the samples and other names of classes."""

    name: str
    """As in the registry, and of the function."""
    title: str
    """As people read it."""
    paper: str
    range: str
    """Of its values; n and C are the numbers of samples and classes."""
    cost: str
    """Order of the time beyond the factorisation that scores share; D features, r their rank."""
    function: Callable[..., float]
    """``f(features, labels)``, or ``f(source_probabilities, labels)``."""
    from_layer: Callable[..., float] | None = None
    """``f(layer, codes)``, for those that need features."""

    @property
    def needs(self) -> Literal["features", "source_probabilities"]:
        """What it is computed from, beside the labels."""
        return "source_probabilities" if self.from_layer is None else "features"


_ACCURACY = "[0, 1]"

SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "logme",
            "LogME (nats per sample)",
            "You et al. 2021",
            "(-∞, ∞)",
            "n r min(n, r)",
            logme,
            logme_from_layer,
        ),
        Score(
            "hscore",
            "H-score, shrunk",
            "Bao et al. 2019, Ibrahim et al. 2022",
            "[0, C - 1]",
            "n r C",
            hscore,
            hscore_from_layer,
        ),
        Score(
            "transrate",
            "TransRate (nats)",
            "Huang et al. 2022",
            "[0, ∞)",
            "n r min(n, r)",
            transrate,
            transrate_from_layer,
        ),
        Score(
            "nleep", "N-LEEP (nats)", "Li et al. 2021", "[-ln n, 0]", "n C, some hundred times", nleep, nleep_from_layer
        ),
        Score("gbc", "GBC", "Pándy et al. 2022", "[-C (C - 1) / 2, 0]", "n C + C²", gbc, gbc_from_layer),
        Score("parc", "PARC", "Bolya et al. 2021", "[-1, 1]", "n² ln n", parc, parc_from_layer),
        Score("sfda", "SFDA (nats)", "Shao et al. 2022", "(-∞, 0]", "n r² + r³", sfda, sfda_from_layer),
        Score(
            "knn",
            "5 nearest neighbours, leave-one-out accuracy",
            "Cover and Hart 1967",
            _ACCURACY,
            "n² D",
            knn,
            knn_from_layer,
        ),
        Score(
            "nearest_mean",
            "Nearest class mean, leave-one-out accuracy",
            "Mensink et al. 2013",
            _ACCURACY,
            "n r C",
            nearest_mean,
            nearest_mean_from_layer,
        ),
        Score(
            "ridge",
            "Linear ridge, leave-one-out accuracy",
            "Hoerl and Kennard 1970",
            _ACCURACY,
            "n r C",
            ridge,
            ridge_from_layer,
        ),
        Score(
            "kernel_ridge",
            "Gaussian kernel ridge, leave-one-out accuracy",
            "Alfano et al. 2022",
            _ACCURACY,
            "n³",
            kernel_ridge,
            kernel_ridge_from_layer,
        ),
        Score(
            "alignment",
            "Label-kernel alignment, debiased CKA",
            "Cortes et al. 2012",
            "[-1, 1]",
            "n r C",
            alignment,
            alignment_from_layer,
        ),
        Score(
            "effective_rank",
            "Effective rank (looks at no labels)",
            "Roy and Vetterli 2007, Garrido et al. 2023",
            "[0, n)",
            "r",
            effective_rank,
            effective_rank_from_layer,
        ),
        Score("leep", "LEEP (nats)", "Nguyen et al. 2020", "[-ln n, 0]", "n C × source classes", leep),
        Score("nce", "NCE (nats)", "Tran et al. 2019", "[-ln C, 0]", "n ln n", nce),
    )
}
"""Every score by its name, in the order in which they are shown."""


def choose(measures: str | Iterable[str] | None, *, with_probabilities: bool) -> list[Score]:
    """Return the scores of these names, each once and in this order; None means all that can be computed.

    Parameters
    ----------
    measures
        Names of `SCORES`.
    with_probabilities
        Whether there are source probabilities, without which LEEP and NCE cannot be computed.

    Raises
    ------
    InputError
        When a name is unknown, or needs source probabilities that are not there, or there is no name at all.
    """
    if measures is None:
        return [score for score in SCORES.values() if with_probabilities or score.needs == "features"]
    names = list(dict.fromkeys([measures] if isinstance(measures, str) else measures))
    for name in names:
        if name not in SCORES:
            close = difflib.get_close_matches(str(name), SCORES, n=3)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {', '.join(SCORES)}"
            raise InputError(f"Expected `measures` to name scores but {name!r} is none; {hint}")
        if SCORES[name].needs == "source_probabilities" and not with_probabilities:
            raise InputError(
                f"Expected `source_probabilities` for {name!r} but got none; pass what the source predicts for its own "
                "classes, (n_samples, n_source_classes), or leave this score out"
            )
    if not names:
        raise InputError("Expected `measures` to name at least one score but got none; leave it out for all of them")
    return [SCORES[name] for name in names]


NEEDED = ("logme", "knn", "nearest_mean", "ridge", "kernel_ridge", "alignment", "effective_rank")
"""What every prediction is made from."""


DEFAULT_SCORES = (*NEEDED, "hscore")
"""What costs little beyond the factorisation that the similarities need anyway."""


ACCURACIES = tuple(name for name, score in SCORES.items() if score.range == "[0, 1]")
"""Scores that are a share of images classified correctly."""


def choose_scores(scores: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of the scores that are asked for, in the order of the registry.

    Parameters
    ----------
    scores : str or iterable of str
        Names of `transferability.SCORES`, "default" for `DEFAULT_SCORES`, or "all". Those that predictions are made
        from (`NEEDED`) are always among them.

    Raises
    ------
    InputError
        When a name is unknown.
    """
    groups = {"default": DEFAULT_SCORES, "all": tuple(SCORES)}
    chosen = set(NEEDED)
    for name in [scores] if isinstance(scores, str) else scores:
        if name not in SCORES and name not in groups:
            hint = near(name, [*SCORES, *groups]) or f"; there are {', '.join([*SCORES, *groups])}"
            raise InputError(f"Expected `scores` to name scores, 'default' or 'all', but got {name!r}{hint}")
        chosen.update(groups.get(name, (name,)))
    return tuple(name for name in SCORES if name in chosen)


def needs_predictions(names: Iterable[str]) -> list[str]:
    """Return those of the scores that look at the source's own class probabilities, and not at features."""
    return [name for name in names if SCORES[name].needs == "source_probabilities"]
