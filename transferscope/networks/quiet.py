"""Libraries kept from reporting and drawing progress: what matters of it is said by ourselves."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers say nothing but errors; its settings are as before afterwards."""
    from transformers.utils import logging

    level, draws = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if draws:
            logging.enable_progress_bar()
