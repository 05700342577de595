"""What `transfer` is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transferscope.errors import InputError, is_whole, near
from transferscope.networks.zoo import SCRATCH
from transferscope.protocols.delivery.export import check_formats
from transferscope.results.ranking import Ranking
from transferscope.runtime.power import WORLD
from transferscope.verbs.request import Request
from transferscope.verbs.running.run import PROTOCOLS

OUTPUT = "transferscope-model"


@dataclass(frozen=True, kw_only=True)
class TransferRequest(Request):
    """The arguments of `transfer`."""

    target: Any
    output: str | Path = OUTPUT
    ranking: str | Path | Ranking | None = None
    row: int | str = 1
    source: str | None = None
    depth: int | None = None
    protocol: str | None = None
    evidence: str | Path | None = None
    export: Sequence[str] = ()
    """Once made: a tuple."""
    country: str = WORLD

    _apart: ClassVar[frozenset[str]] = Request._apart | {"evidence", "export", "ranking", "row"}

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("source", "depth", "protocol") if getattr(self, name) is not None]
        if self.ranking is not None and given:
            raise InputError(
                f"Expected either `ranking` or `source`, `depth` and `protocol`, but got `ranking` and `{given[0]}`; "
                "another row of the ranking is chosen by `row`"
            )
        if self.ranking is None and self.source is None:
            raise InputError(
                "Expected `ranking`, the folder that `rank -o` has written, or `source`, `depth` and `protocol`, but "
                "got neither"
            )
        if self.source == SCRATCH and self.protocol is None:
            self._settle(protocol=SCRATCH)
        if self.ranking is None and self.protocol is None:
            raise InputError(f"Expected `protocol` beside `source`, one of {', '.join(PROTOCOLS)}, but got none")
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise InputError(
                f"Expected `protocol` to be one of {', '.join(PROTOCOLS)}, but got {self.protocol!r}"
                f"{near(self.protocol, PROTOCOLS)}"
            )
        if self.depth is not None and not is_whole(self.depth):
            raise InputError(f"Expected `depth` to be a whole number of stages, but got {self.depth!r}")
        if not isinstance(self.row, str) and not is_whole(self.row, 1):
            raise InputError(f"Expected `row` to be a rank, from 1, or the name of a source, but got {self.row!r}")
        self._settle(export=check_formats(self.export))
