"""What can go wrong and is expected: one base class and a handful of children.

Every message names the argument or file, what was expected, what came, and what to do about it.
"""


class TransferscopeError(Exception):
    """Base of every error that transferscope raises on purpose."""

    exit_code = 1
    """What the command line exits with: 1 a known failure, 2 wrong usage or a bad file."""


class InputError(TransferscopeError, ValueError):
    """An argument or a file is not what it has to be."""

    exit_code = 2


class DeviceError(TransferscopeError):
    """The requested device does not exist or cannot do the work."""


class SourceError(TransferscopeError):
    """One source network could not be loaded, run or scored; the other sources are unaffected."""


class CaptureError(SourceError):
    """Activations could not be captured: a layer is unknown, never fired, or returned no tensor."""


def is_interrupt(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind `error`: what Python or a library made of it on the way up."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


class TransferscopeWarning(UserWarning):
    """Something was skipped, dropped or cannot be trusted; the message says what follows from it."""
