"""What failed and why, in one sentence."""

import logging
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from transferscope.errors import TransferscopeError, is_interrupt
from transferscope.runtime.failing_layer import failing_layer
from transferscope.runtime.printable import shortened

logger = logging.getLogger("transferscope")


@dataclass(frozen=True)
class Failure:
    """What failed, a source most often, and why."""

    source: str
    error: str


def listed(failures: Iterable[Failure]) -> str:
    """Name failures with their reasons in one line."""
    return "; ".join(f"{each.source}: {each.error}" for each in failures)


def failure(name: str, error: BaseException, batch_size: int, what: str = "") -> Failure:
    """Take note of an error of a source, or of `what` was done with it; an interrupt goes on its way."""
    if is_interrupt(error):
        raise KeyboardInterrupt from error
    record = Failure(what or name, describe(name, error, batch_size))
    logger.warning("%s failed: %s", record.source, record.error)
    logger.debug("%s", traceback.format_exc())
    return record


def describe(name: str, error: BaseException, batch_size: int) -> str:
    """Say in one sentence what went wrong with a source: the layer it happened in and what that was given, if any."""
    if isinstance(error, TransferscopeError):
        return shortened(str(error).removeprefix(f"source {name!r}: "))
    text = " ".join(shortened(str(error)).split())
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return f"Out of memory at batch size {batch_size}; try a smaller one with --batch-size"
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if (layer := failing_layer(error)) is None:
        return said
    return f"{layer}: {said}" + (f"; {layer.mismatch}" if layer.mismatch else "")
