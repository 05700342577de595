"""Of several networks in one file, the one that is taken, and what is said of all that is not."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from transferscope.errors import SourceError, near
from transferscope.networks.matching import Match, same

SHOWN = 3

# Of two networks that are trained together, the one that is kept by convention, and the other.
_PAIRS = (("encoder_q", "encoder_k"), ("base", "momentum"), ("online", "target"), ("teacher", "student"))
_AVERAGES = {"ema", "swa", "averaged", "average", "momentum", "shadow"}
_TRAINING = re.compile(
    r"optim|sched|scaler"
    r"|(^|\.)(amp|loops|callbacks|rng\w*|hyper_parameters|meters?|epoch|best_(acc|prec|loss|score|metric)\w*)(\.|$)"
)


def under_key(file: Mapping[str, Tensor], key: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file that lie under a `checkpoint_key`: from the start of their names, or within them.

    Raises
    ------
    SourceError
        There are none; the message names the keys that there are.
    """
    wanted = f"{key.strip('.')}."
    found = {name: tensor for name, tensor in file.items() if f"{name}.".startswith(wanted)}
    found = found or {name: tensor for name, tensor in file.items() if f".{wanted}" in f".{name}"}
    if not found:
        heads = Counter(".".join(name.split(".")[:depth]) for name in file for depth in range(1, name.count(".") + 1))
        # What holds a fifth of the tensors is more than a layer of a network.
        large = sorted(head for head, count in heads.items() if 5 * count >= len(file))
        known = f"the keys above most tensors are {', '.join(large)}" if large else "no tensor lies under a key"
        raise SourceError(
            f"checkpoint {path} holds nothing under checkpoint_key {key!r}{near(key, large or heads)}; {known}"
        )
    return found


def choose(fits: Sequence[Match], path: Path) -> tuple[Match, list[str]]:
    """Return the match that is taken, and what has to be said of the choice.

    Networks with a classifier come before those without, and of pairs that are trained together the one that is kept
    by convention: the query encoder, the base, the online network, the teacher; weights before their moving average.

    Raises
    ------
    SourceError
        Several with different weights are left.
    """
    whole = [match for match in fits if not match.drawn] or list(fits)
    different = _different(sorted(whole, key=lambda match: _is_second(match, whole)))
    kept = [match for match in different if not _is_second(match, different)]
    if len(kept) != 1:
        names = [_name(match) for match in kept or different]
        raise SourceError(
            f"checkpoint {path} holds {len(names)} networks that fit, with different weights: {', '.join(names)}; "
            f"say which one as checkpoint_key, {names[0]!r} for example"
        )
    (taken,) = kept
    said = []
    if others := [_name(match) for match in different if match is not taken]:
        said.append(
            f"checkpoint {path.name} holds {len(different)} networks that fit: {_name(taken)} is taken, not "
            f"{', '.join(others)}; checkpoint_key: {others[0]} would take the other"
        )
    return taken, said + _left(taken, fits, path)


def _left(taken: Match, fits: Iterable[Match], path: Path) -> list[str]:
    """Say what of a file is not taken, but for the state of its training, and what it lacks."""
    said = []
    prefix = taken.naming.prefix
    elsewhere = {key for match in fits for key in match.places.values()}
    if unused := [key for key in taken.unused if key not in elsewhere and not _TRAINING.search(key)]:
        said.append(
            f"checkpoint {path.name}: {_some(unused)} {'is' if len(unused) == 1 else 'are'} not taken, for the network "
            "has no such parts"
        )
    beside = Counter(
        _branch(key, prefix)
        for key, tensor in taken.file.items()
        if not key.startswith(prefix) and key not in elsewhere and tensor.is_floating_point()
    )
    if groups := [group for group in beside if not _TRAINING.search(group)]:
        said.append(
            f"checkpoint {path.name}: the weights under {prefix.rstrip('.')} are taken, those under "
            f"{_some(groups)} are not"
        )
    if taken.beside:
        said.append(
            f"checkpoint {path.name}: the classifier is that beside {prefix.rstrip('.')}: "
            f"{_some(list(taken.beside.values()))}"
        )
    if taken.drawn:
        said.append(
            f"checkpoint {path.name} has no classifier: {_some(taken.drawn)} stay as they are drawn, so that what "
            "the network returns means nothing (its layers do)"
        )
    return said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _branch(key: str, prefix: str) -> str:
    """Return where a name turns off from a prefix."""
    parts, ours = key.split("."), prefix.split(".")
    depth = next(index for index, part in enumerate(parts) if part != ours[index])
    return ".".join(parts[: depth + 1])


def _name(match: Match) -> str:
    return match.naming.prefix.rstrip(".") or "the tensors at its top"


def _different(matches: Sequence[Match]) -> list[Match]:
    """Leave out those whose weights are those of an earlier one."""
    kept: list[Match] = []
    for match in matches:
        if not any(_same(match.taken, other.taken) for other in kept):
            kept.append(match)
    return kept


def _same(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(same(some[name], others[name]) for name in some)


def _is_second(match: Match, among: Sequence[Match]) -> bool:
    """Whether by convention another of the matches is taken before this one."""
    own = _words(match)
    others = [_words(other) for other in among if other is not match]
    if any(second in own and any(first in words for words in others) for first, second in _PAIRS):
        return True
    return bool(own & _AVERAGES) and any(not words & _AVERAGES for words in others)


def _words(match: Match) -> set[str]:
    """Return the words of a prefix, and its parts as they are."""
    parts = match.naming.prefix.lower().split(".")
    return {*parts, *(word for part in parts for word in part.split("_"))}
