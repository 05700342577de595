"""Which transfer is run: a row of a ranking, or what was asked for by name."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transferscope.data.target import Target
from transferscope.errors import InputError, TransferscopeWarning, near
from transferscope.networks import loading
from transferscope.networks.blueprint import compact_source
from transferscope.networks.zoo import SCRATCH, Source, Zoo, load_zoo
from transferscope.protocols.cutting.places import Cut, layer_at
from transferscope.protocols.scratch import compact_network, compact_transform
from transferscope.results.ranking import Ranking, load_ranking
from transferscope.results.recommendation import Recommendation
from transferscope.results.transfer import Expectation
from transferscope.verbs.running.run import LAYER_SETS, PROTOCOLS
from transferscope.verbs.transfer.request import TransferRequest

_COMPACT = "compact residual network"
"""What a ranking calls the network that it trains from scratch itself."""


@dataclass(frozen=True)
class Choice:
    """A transfer to be run.

    Attributes
    ----------
    source
        What it starts from.
    protocol
        One of `run.PROTOCOLS`.
    depth
        As it was asked for; None where it was not.
    expected
        By the ranking it comes from, if it does.
    """

    source: Source
    protocol: str
    depth: int | None
    expected: Expectation | None = None

    def place(self, layers: Sequence[str]) -> tuple[int, str]:
        """Return the depth among these layers, and what `Run.layer` says for it.

        Raises
        ------
        InputError
            The protocol has no such depth, or several and none was asked for.
        """
        protocol = PROTOCOLS[self.protocol]
        only = {"whole": len(layers), "none": 0}.get(protocol.depths)
        depth = only if self.depth is None else self.depth
        if depth is not None and depth < 0:
            depth += len(layers) + 1
        name = "surgical" if protocol.depths == "whole" else self.protocol
        try:
            layer = layer_at([Cut(layer, place) for place, layer in enumerate(layers, 1)], depth, name)  # type: ignore
        except InputError as error:
            raise InputError(f"source {self.source.name!r}: {error}".replace(repr(name), repr(self.protocol))) from None
        assert depth is not None  # which is no depth of any protocol
        return depth, LAYER_SETS[0] if protocol.kind == "embedding" else layer


def choose(request: TransferRequest, target: Target) -> Choice:
    """Find out which transfer is asked for, without loading a network.

    Raises
    ------
    InputError
        There is no such source or row, or its code is not trusted.

    Warns
    -----
    TransferscopeWarning
        The ranking is of other images, or of another network by that name.
    """
    zoo = load_zoo(request.zoo)
    if request.ranking is None:
        assert request.source is not None
        assert request.protocol is not None  # the request has checked them
        choice = Choice(_source(request.source, request.protocol, zoo, target), request.protocol, request.depth)
    else:
        choice = _ranked(request, zoo, target)
    if choice.source.name != SCRATCH:
        loading.check_trust(choice.source, request.trust_code)
    return choice


def _ranked(request: TransferRequest, zoo: Zoo, target: Target) -> Choice:
    ranking = request.ranking if isinstance(request.ranking, Ranking) else load_ranking(str(request.ranking))
    pick = _row(ranking, request.row)
    if ranking.target.hash != target.hash:
        warnings.warn(
            f"The ranking is of other images than target {target.name!r}: what it expects may not hold for these",
            TransferscopeWarning,
            stacklevel=2,
        )
    if pick.layer is None:
        if ranking.reference is None or ranking.reference.network != _COMPACT:
            raise InputError(
                "Expected a row of the ranking that starts from a source, or trains the compact network from scratch, "
                f"but row {pick.rank} trains another architecture from scratch; name the source that has it, with "
                "`protocol` scratch, in place of `ranking`"
            )
        source = _source(SCRATCH, SCRATCH, zoo, target)
    else:
        source = _source(pick.source, pick.protocol, zoo, target)
        known = ranking.provenance.sources.get(source.name) if ranking.provenance else None
        if known is not None and known != loading.fingerprint(source):
            warnings.warn(
                f"The ranking is of another network by the name of {source.name!r}, or of other versions of its "
                "libraries: what it expects may not hold for this one",
                TransferscopeWarning,
                stacklevel=2,
            )
    expected = Expectation(pick.expected_accuracy, pick.interval, ranking.expected_for, pick.rank, ranking.metric.name)
    return Choice(source, pick.protocol, pick.depth, expected)


def _row(ranking: Ranking, row: int | str) -> Recommendation:
    for pick in ranking.recommendations:
        if row in (pick.rank, pick.source):
            return pick
    names = [pick.source for pick in ranking.recommendations]
    raise InputError(
        f"Expected `row` to be from 1 to {len(names)} or the name of a source in the ranking, but got {row!r}"
        f"{near(row, names)}; they are {', '.join(names)}"
    )


def _source(name: str, protocol: str, zoo: Zoo, target: Target) -> Source:
    """Return the source of a transfer; of one from scratch without a source the compact network."""
    if name != SCRATCH:
        return zoo[name]
    if protocol != SCRATCH:
        raise InputError(f"Expected the protocol scratch for the source {SCRATCH!r}, but got {protocol!r}")
    transform = compact_transform(target)
    stem: Any = compact_network(len(target.classes), transform).stem[0]
    return compact_source(len(target.classes), stem.stride[0], transform)
