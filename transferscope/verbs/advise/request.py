"""What `advise` is asked."""

from dataclasses import dataclass, fields

from transferscope.errors import InputError, near
from transferscope.networks.zoo import Zoo, load_zoo
from transferscope.runtime.power import WORLD
from transferscope.verbs.rank.request import ExpectingRequest, RankRequest


@dataclass(frozen=True, kw_only=True)
class AdviseRequest(ExpectingRequest):
    """The arguments of `advise`."""

    source: str | None = None
    tolerance: float = 0.02
    country: str = WORLD

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.tolerance, (int, float)) and not isinstance(self.tolerance, bool)
        if not number or not 0 <= self.tolerance < 1:
            raise InputError(
                f"Expected `tolerance` to be an accuracy, at least 0 and below 1, but got {self.tolerance!r}"
            )

    def of_rank(self) -> RankRequest:
        """Return what `rank` is to be asked first: of the one source, where one is named."""
        zoo = load_zoo(self.zoo)
        shared = {field.name: getattr(self, field.name) for field in fields(ExpectingRequest)}
        shared["zoo"] = zoo if self.source is None else _only(zoo, self.source)
        return RankRequest(**shared, mode="quick")


def _only(zoo: Zoo, source: str) -> Zoo:
    """Return a zoo that holds this source alone."""
    if source not in zoo:
        hint = near(source, zoo.names) or f"; there are {', '.join(zoo.names)}"
        raise InputError(f"Expected `source` to name a source of the zoo, but got {source!r}{hint}")
    return zoo.model_copy(update={"sources": (zoo[source],), "order": None})
