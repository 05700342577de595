"""The grid: which transfers there are to run, and which of them share work."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from transferscope.errors import InputError, TransferscopeWarning, near
from transferscope.results.left_out import LeftOut, sentences
from transferscope.runtime.checks import ALL
from transferscope.verbs.running.run import LAYER_SETS, PROTOCOLS, Protocol, Run, is_trained

Depths = Literal["all"] | Sequence[int]


def plan(
    sources: Mapping[str, Sequence[str]],
    protocols: Sequence[str],
    sizes: Sequence[int],
    *,
    target: str,
    seeds: int,
    depths: Depths = ALL,
    impossible: Mapping[str, Sequence[LeftOut]] = MappingProxyType({}),
) -> list[Run]:
    """List the runs of a grid.

    They come source by source, and for each first what fits a classifier to features, then what trains a network;
    within that the small sizes first, then seed by seed, so that a grid that is stopped early has whole profiles over
    depth.

    Parameters
    ----------
    sources : mapping of str to sequence of str
        For each source the layers that it can be cut after, from the input on: a cut at depth k lies after the
        k-th of them.
    protocols : sequence of str
        Names in `PROTOCOLS`.
    sizes : sequence of int
        Training images of each class, at least 1.
    target : str
        Its name.
    seeds : int
        How many repetitions; they get the seeds 0 to `seeds` - 1.
    depths : "all" or sequence of int
        Depths to run. Negative ones count from the end, -1 keeping all stages. 0 means something for ``defrost``
        alone; ``scratch``, ``surgical`` and ``fne``, which have no choice, are run at their own depth in any case.
    impossible : mapping of str to sequence of LeftOut
        For each source what it cannot be adapted by; those runs are left out.

    Raises
    ------
    InputError
        A protocol does not exist or has no depth to run at, no source has as many stages as a depth says, or a number
        is out of range.

    Warns
    -----
    TransferscopeWarning
        Some of the sources do not have as many stages as a depth says, or cannot be adapted by a protocol.
    """
    known_protocols(protocols)
    for name, values in (("seeds", [seeds]), ("samples_per_class", sizes)):
        if not values or min(values) < 1:
            raise InputError(f"Expected `{name}` to be at least 1, but got {', '.join(map(str, values)) or 'none'}")
    if depths != ALL:
        _check_depths(depths, {source: len(layers) for source, layers in sources.items()})
    chosen = [protocol for protocol in PROTOCOLS.values() if protocol.name in protocols]
    cuts = {
        (source, protocol.name): _cuts(protocol, layers, depths)
        for source, layers in sources.items()
        for protocol in chosen
    }
    for protocol in chosen:
        if sources and not any(cuts[source, protocol.name] for source in sources):
            raise InputError(
                f"Expected `depths` to hold at least one above 0 for {protocol.name}, because a network cut at depth 0 "
                "keeps nothing; add one, or use scratch"
            )
    _leave_out(cuts, impossible)
    return [
        Run(source, target, protocol.name, depth, len(layers), layer, size, seed)
        for source, layers in sources.items()
        for trained in (False, True)
        for size in sorted(set(sizes))
        for seed in range(seeds)
        for protocol in chosen
        if is_trained(protocol.name) == trained
        for depth, layer in cuts[source, protocol.name]
    ]


def _leave_out(cuts: dict[tuple[str, str], list[tuple[int, str]]], impossible: Mapping[str, Sequence[LeftOut]]) -> None:
    """Take the cuts away at which a source cannot be adapted by a protocol, and warn of those that were asked for."""
    for entries in impossible.values():
        missed = []
        for entry in entries:
            asked = cuts.get((entry.source, entry.protocol), [])
            if left := [cut for cut in asked if cut[0] in entry.depths]:
                cuts[entry.source, entry.protocol] = [cut for cut in asked if cut not in left]
                depths = tuple(depth for depth, _ in left)
                missed.append(replace(entry, depths=depths, everywhere=len(left) == len(asked)))
        for sentence in sentences(missed).values():
            warnings.warn(f"{sentence}; these runs are left out", TransferscopeWarning, stacklevel=3)


def group(runs: Sequence[Run], *, together: bool = False) -> list[tuple[Run, ...]]:
    """Group runs by the work that they share, in their order.

    All runs of one source that fit classifiers to features are one group: the features are computed once. Each run
    that trains a network is a group of its own or, with `together`, one with those that differ in the seed alone.
    """
    groups: dict[object, list[Run]] = {}
    for run in runs:
        key: object = run.source
        if is_trained(run.protocol):
            key = run.identity[:-1] if together else run
        groups.setdefault(key, []).append(run)
    return [tuple(members) for members in groups.values()]


def known_protocols(names: Sequence[str]) -> None:
    """Raise `InputError` unless there are names, all of them of protocols."""
    if not names:
        raise InputError(f"Expected `protocols` to name at least one of {', '.join(PROTOCOLS)}, but got none")
    for name in names:
        if name not in PROTOCOLS:
            raise InputError(
                f"Expected `protocols` to be among {', '.join(PROTOCOLS)}, but got {name!r}{near(name, PROTOCOLS)}"
            )


def _cuts(protocol: Protocol, layers: Sequence[str], depths: Depths) -> list[tuple[int, str]]:
    """Return the depths, each with what `Run.layer` says, that a protocol is run at."""
    stages = len(layers)
    if protocol.kind == "embedding":
        return [(stages, layer_set) for layer_set in LAYER_SETS]
    if protocol.depths == "whole":
        return [(stages, layers[-1])]
    if protocol.depths == "none":
        return [(0, "")]
    possible = range(0 if protocol.depths == "frozen" else 1, stages + 1)
    # -1 keeps all stages, so that counting from the end is the same as in a list of the cuts.
    wanted = possible if depths == ALL else {d if d >= 0 else stages + 1 + d for d in depths if d >= -stages}
    return [(depth, layers[depth - 1] if depth else "") for depth in possible if depth in wanted]


def _check_depths(depths: Sequence[int], stages: Mapping[str, int]) -> None:
    """Make sure that each depth exists in a source; warn of the sources that lack it."""
    for depth in depths:
        lacking = [source for source, count in stages.items() if not -count <= depth <= count]
        if stages and len(lacking) == len(stages):
            most = max(stages.values())
            raise InputError(
                f"Expected `depths` to lie between 0 and the number of stages, at most {most} in these sources, or to "
                f"count from the end (-1 to -{most}), but got {depth}"
            )
        if lacking:
            warnings.warn(
                f"Depth {depth} is left out for {', '.join(lacking)}: there are fewer stages",
                TransferscopeWarning,
                stacklevel=3,
            )
