"""The next step after a ranking: the very command, or call, that makes the model it recommends."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transferscope.report.html.parts import Section

if TYPE_CHECKING:
    from transferscope.results.ranking import Ranking

_KEPT = ("--target", "--images", "--labels", "--task", "--sources", "--value-range", "--bands", "--device")
"""Options of `rank` that `transfer` takes with the same value: what is transferred to what, and how it is read."""
_FLAGS = ("--trust-code",)
_READING = ("images", "labels", "task", "value_range", "bands")
_DEFAULT = "transferscope-results"
"""Where `rank` writes unless it is told."""
_COMPACT = "compact residual network"
_MODEL = "model"


def next_step(ranking: "Ranking") -> Section:
    """Return the section that says how the transfer of the first row is really run."""
    made = ranking.provenance
    words = shlex.split(made.command) if made is not None and made.command else []
    step = _command(words, ranking) if words else _call(made.settings if made is not None else {}, ranking)
    where = "in the folder that rank was run in" if words else "in the session that made the ranking"
    if words:
        trust = "--trust-code " * ("--trust-code" in words)
        then = f"The model then predicts: transferscope predict {trust}{_MODEL} IMAGES -o predictions.csv"
    else:
        then = (
            f"The model then predicts: ts.load_transfer({_MODEL!r}).predict(images). Both take trust_code=True where "
            "rank was given it."
        )
    hint = (
        f"Run this {where}: it trains the first row on all training images, measures it on images apart, and writes "
        f"the model into the folder {_MODEL}."
    )
    return Section("next", "Next step", hint, code=step, lines=[then])


def _command(words: list[str], ranking: "Ranking") -> str:
    """Return the command, made from the one that made the ranking."""
    kept, folder = [], _DEFAULT
    values = iter(words)
    for word in values:
        if word in _FLAGS:
            kept.append(word)
        elif word in _KEPT:
            kept += [word, next(values, "")]
        elif word == "--output":
            folder = next(values, folder)
    which = ["--ranking", folder]
    if (source := _own(ranking)) is not None:
        which = ["--source", source, "--protocol", "scratch"]
    return shlex.join(["transferscope", "transfer", *kept, *which, "-o", _MODEL])


def _call(settings: Mapping[str, Any], ranking: "Ranking") -> str:
    """Return the call from Python, with the names that the arguments of `rank` have."""
    arguments = ["target", "zoo", repr(_MODEL)]
    source = _own(ranking)
    arguments += ["ranking=ranking"] if source is None else [f"source={source!r}", "protocol='scratch'"]
    arguments += [f"{name}={settings[name]!r}" for name in _READING if settings.get(name) is not None]
    return f"ts.transfer({', '.join(arguments)})"


def _own(ranking: "Ranking") -> str | None:
    """Return the source whose own architecture is to be trained from scratch, which is no row of a ranking."""
    best, reference = ranking.best, ranking.reference
    if best.layer is not None or reference is None or reference.network == _COMPACT:
        return None
    sources = [str(source) for source in ranking.scores["source"].to_numpy()]
    return next((source for source in sources if reference.network == f"{source}'s own architecture"), None)
