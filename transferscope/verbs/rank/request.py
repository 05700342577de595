"""What `rank` is asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from transferscope.errors import InputError, is_whole
from transferscope.prediction.selection import OBJECTIVES, protocols_of
from transferscope.transferability.scores import choose_scores
from transferscope.verbs.request import ProbeRequest, check_reference

MODES = ("default", "quick")


@dataclass(frozen=True, kw_only=True)
class RankRequest(ProbeRequest):
    """The arguments of `rank`."""

    scores: str | Iterable[str] = "default"
    """Once made: the names, those included that predictions need."""
    uncertainty: int = 0
    reference: str = "compact"
    protocol: str = "any"
    shots: int | None = None
    objective: str = "accuracy"
    mode: str = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_reference(self.reference)
        protocols_of(self.protocol)
        self._settle(scores=self._score_names(), shots=check_shots(self.shots))
        if self.objective not in OBJECTIVES:
            raise InputError(f"Expected `objective` to be one of {', '.join(OBJECTIVES)}, but got {self.objective!r}")
        if not is_whole(self.uncertainty, 0) or self.uncertainty == 1:
            raise InputError(
                "Expected `uncertainty` to be a number of draws, at least 2, or 0 for none, but got "
                f"{self.uncertainty!r}"
            )
        self._settle(uncertainty=int(self.uncertainty))

    def _score_names(self) -> tuple[str, ...]:
        if self.mode not in MODES:
            raise InputError(f"Expected `mode` to be one of {', '.join(MODES)}, but got {self.mode!r}")
        if self.mode == "default":
            return choose_scores(self.scores)
        if self.scores != "default":
            raise InputError(f"Expected no `scores` with `mode` 'quick', which has its own, but got {self.scores!r}")
        return choose_scores(())

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those that are looked at."""
        return protocols_of(self.protocol)

    def probe_size(self, classes: int) -> int:
        """Return how many images of a target with so many classes are looked at."""
        return self.samples if self.shots is None else min(self.samples, max(self.shots, 2) * classes)


def check_shots(shots: int | None) -> int | None:
    """Return the argument `shots` as an int, or None; raise InputError when it is no number of images."""
    if shots is not None and not is_whole(shots, 1):
        raise InputError(
            f"Expected `shots` to be a whole number of images of each class, at least 1, or None, but got {shots!r}"
        )
    return None if shots is None else int(shots)
