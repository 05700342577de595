"""What pilots found, and what they would find: real transfers that are run before an answer is given."""

from dataclasses import dataclass

from transferscope.runtime.numbers import short_number


@dataclass(frozen=True)
class Pilot:
    """A real transfer that was run to make the answer surer."""

    source: str
    depth: int
    """Stages of the source that it keeps or, for defrost, freezes."""
    protocol: str
    samples: int
    """Images that it was trained on."""
    accuracy: float
    """On images that it was not trained on."""
    standard_error: float
    """Of the number of these images."""
    seconds: float
    """That it took when it was run; later runs have it from the cache."""


@dataclass(frozen=True)
class Outlook:
    """What pilots would bring, according to the model that expects accuracies."""

    seconds: float
    """That they would be given."""
    half_width: float
    """Of the 80 % interval of the best candidate, now."""
    expected_half_width: float
    """The same after them."""

    @property
    def text(self) -> str:
        """The same in one sentence; empty where pilots would bring nothing to speak of."""
        now, then = (round(100 * width) for width in (self.half_width, self.expected_half_width))
        if then >= now:
            return ""
        minutes = self.seconds / 60
        long = f"{self.seconds:.0f} seconds" if minutes < 1 else f"{short_number(minutes)} minute{'s' * (minutes != 1)}"
        return f"Pilots, real transfers in about {long} (--pilots auto), would narrow ±{now} to about ±{then} points."
