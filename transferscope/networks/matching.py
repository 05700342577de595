"""Under which naming a file's tensors are those of a network: found in its names, whatever else the file holds."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from transferscope.networks.expected import COUNTER, Expected

_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class Naming:
    """How a file calls the tensors of a network: `prefix` before each name, without the `own` that names begin with."""

    prefix: str
    own: str = ""

    def in_file(self, name: str) -> str:
        """Return what the file calls a tensor of the network."""
        return self.prefix + name.removeprefix(self.own)

    @property
    def above(self) -> list[str]:
        """The prefixes around this one, the nearest first."""
        parts = self.prefix.split(".")[:-1]
        return ["".join(f"{part}." for part in parts[:depth]) for depth in reversed(range(len(parts)))]


@dataclass(frozen=True)
class Match:
    """A file's tensors under one naming, beside what the network asks for."""

    naming: Naming
    expected: Expected
    file: Mapping[str, Tensor]

    @cached_property
    def places(self) -> dict[str, str]:
        """The file's names of what it gives, by the network's names."""
        there = {name: self.naming.in_file(name) for name in self.expected.tensors}
        return {name: key for name, key in there.items() if key in self.file} | self.beside

    @cached_property
    def beside(self) -> dict[str, str]:
        """The file's names of the classifier where it lies not with the rest but around it: ``backbone.``, ``fc.``."""
        names = [name for name in self.expected.tensors if name in self.expected.classifier]
        if any(self.naming.in_file(name) in self.file for name in names):
            return {}
        for prefix in self.naming.above:
            around = {name: prefix + name for name in names if prefix + name in self.file}
            if len(around) == len(names) and all(
                _alike(self.file[key], self.expected.tensors[name]) for name, key in around.items()
            ):
                return around
        return {}

    @cached_property
    def taken(self) -> dict[str, Tensor]:
        """The tensors that the file gives, by the network's names; those that share one are given by any of them."""
        found = {name: self.file[key] for name, key in self.places.items()}
        for group in self.expected.shared:
            given = next((found[name] for name in group if name in found), None)
            if given is not None:
                found |= {name: given for name in group if name not in found}
        return {name: found[name] for name in self.expected.tensors if name in found}

    @property
    def missing(self) -> list[str]:
        """The network's names that the file lacks, but for counters."""
        return [name for name in self.expected.tensors if name not in self.taken and not name.endswith(COUNTER)]

    @property
    def drawn(self) -> list[str]:
        """The names of the classifier, where the file has nothing of it: it stays as it was drawn."""
        classifier = [name for name in self.expected.tensors if name in self.expected.classifier]
        return classifier if not any(name in self.taken for name in classifier) else []

    @cached_property
    def differing(self) -> list[str]:
        """The network's names that are another kind of tensor in the file."""
        return [name for name, tensor in self.taken.items() if not _alike(tensor, self.expected.tensors[name])]

    @cached_property
    def torn(self) -> list[str]:
        """The network's names that share one tensor there, and have different ones in the file."""
        groups = ([name for name in group if self.naming.in_file(name) in self.file] for group in self.expected.shared)
        return [name for group in groups for name in group if not same(self.taken[name], self.taken[group[0]])]

    @cached_property
    def unused(self) -> list[str]:
        """The file's names under the prefix that the network does not have; numbers that are counted do not count."""
        used = {self.naming.in_file(name) for name in self.expected.tensors}
        prefix = self.naming.prefix
        rest = (key for key in self.file if key.startswith(prefix) and key not in used)
        return [key for key in rest if self.file[key].is_floating_point()]

    @cached_property
    def deeper(self) -> list[str]:
        """Those of them that belong into modules which the network has: it is not the one that was saved."""
        return [key for key in self.unused if self._is_deeper(key.removeprefix(self.naming.prefix))]

    @property
    def fits(self) -> bool:
        """Whether every tensor but the classifier's is there and of the right kind, and the classifier all or not."""
        lacking = set(self.missing) - set(self.drawn)
        return not (lacking or self.differing or self.deeper or self.torn)

    def _is_deeper(self, name: str) -> bool:
        own = self.naming.own
        if any(f"{name}.".startswith(f"{end.removeprefix(own)}.") for end in self.expected.ends):
            return False  # what stood where the classifier is, or was taken away
        parts = name.split(".")
        inside = own.removesuffix(".")
        for depth in range(len(parts) - 1, -1, -1):
            path = ".".join(filter(None, [inside, *parts[:depth]]))
            if path in self.expected.scopes:
                # Beside the parts of a whole network anything may lie, but not one more of numbered layers.
                return depth > 0 or (parts[0].isdigit() and any(name[len(own)].isdigit() for name in self._own_names))
        return False

    @property
    def _own_names(self) -> Iterator[str]:
        own = self.naming.own
        return (name for name in self.expected.tensors if name.startswith(own))


def matches(expected: Expected, file: Mapping[str, Tensor]) -> list[Match]:
    """Return the file's tensors under each naming that gives the network any, those that give it the most first."""
    votes = _votes(expected, file)
    ranked = sorted(votes, key=lambda naming: (-votes[naming], len(naming.prefix), naming.prefix))
    return [Match(naming, expected, file) for naming in ranked]


def fitting(expected: Expected, file: Mapping[str, Tensor]) -> list[Match]:
    """Return the matches under which all fits, each set of tensors once, with its classifier where there is one."""
    votes = _votes(expected, file)
    enough = len(expected.required)
    found: dict[tuple[str, ...], Match] = {}
    for naming in sorted(votes, key=lambda naming: (len(naming.prefix), naming.prefix, naming.own)):
        match = Match(naming, expected, file)
        if votes[naming] >= enough and match.fits:
            place = tuple(naming.in_file(name) for name in expected.required if naming.in_file(name) in file)
            if place not in found or (found[place].drawn and not match.drawn):
                found[place] = match
    return list(found.values())


def _votes(expected: Expected, file: Iterable[str]) -> Counter[Naming]:
    """Count, for each naming, the names of the network that the file has."""
    stems = {own: {name.removeprefix(own) for name in expected.tensors} for own in _own_prefixes(expected)}
    votes: Counter[Naming] = Counter()
    for key in file:
        parts = key.split(".")
        for depth in range(len(parts)):
            stem, prefix = ".".join(parts[depth:]), "".join(f"{part}." for part in parts[:depth])
            # Where both end alike, a shorter naming calls all but the classifier the same, and that by its name.
            same_end = parts[depth - 1] if depth else None
            votes.update(
                Naming(prefix, own)
                for own, names in stems.items()
                if stem in names and own.split(".")[-2:-1] != [same_end]
            )
    return votes


def _own_prefixes(expected: Expected) -> list[str]:
    """Return what all names but the classifier's begin with, from nothing to the longest."""
    parts = common_prefix(expected.required or expected.tensors).split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:length]) for length in range(len(parts) + 1)]


def common_prefix(names: Iterable[str]) -> str:
    """Return the modules that all names begin with, each with its dot: ``backbone.`` or nothing."""
    first, *rest = (name.split(".")[:-1] for name in names)
    depth = 0
    while depth < len(first) and all(parts[: depth + 1] == first[: depth + 1] for parts in rest):
        depth += 1
    return "".join(f"{part}." for part in first[:depth])


def same(some: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values; of one and the same they are not looked at."""
    return some is other or torch.equal(some, other)


def _alike(stored: Tensor, expected: Tensor) -> bool:
    # load_state_dict would turn integers (quantised weights, say) into floats without a word.
    return stored.shape == expected.shape and stored.is_floating_point() == expected.is_floating_point()


def without_prefix(state: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Remove as many prefixes as make the most keys the network's own (whose keys may carry some too).

    Parameters
    ----------
    state
        Named weights, of which all keys may begin with ``module.``, ``model.``, ``_orig_mod.`` or several of them.
    own
        The network's keys.
    """
    keys = set(own)
    best, candidate = state, state
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in candidate)), None):
        candidate = {key.removeprefix(prefix): value for key, value in candidate.items()}
        if len(candidate.keys() & keys) >= len(best.keys() & keys):
            best = candidate
    return dict(best)
