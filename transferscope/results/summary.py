"""What a result says of its target and of the scratch network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TargetSummary:
    """The images that everything was measured on."""

    name: str
    samples: int
    """Images in the probe set."""
    classes: int
    hash: str
    """Content hash of the whole target."""


@dataclass(frozen=True)
class Reference:
    """The network trained from scratch on the target (or handed in) that the sources were compared with."""

    network: str
    held_out_accuracy: float | None
    """Accuracy on images that it never saw; None for a network that was handed in. With each source's own architecture
    as reference this is the best of them."""
    held_out_samples: int
    trained_on: int
    epochs: int
    stopped: str
    """Why training ended: "finished" or "budget"; "given" for a network that was handed in."""

    @property
    def training(self) -> str:
        """How long it was trained and why no longer, in words."""
        return f"{self.epochs} epoch{'' if self.epochs == 1 else 's'} ({self.stopped})"
