"""The reference of a comparison or a ranking, made by a worker of an engine."""

from dataclasses import replace
from typing import Any

from transferscope.runtime.engines.crew import Crew, warn_again


def have_reference_made(workers: Crew, work: Any) -> tuple[Any, bool]:
    """Have the reference of `work` made; workers with a cache of their own get it sent along from then on.

    Parameters
    ----------
    workers : Crew
        At work on `work`.
    work : dataclass
        Its unit ``("reference",)`` returns the facts of the reference, and what the cache keeps of it; the latter goes
        into the field `trained`.

    Returns
    -------
    facts
        Of the reference.
    shared : bool
        Whether workers share the cache.
    """
    ((_, outcome),) = workers.carry_out([[("scratch reference", ("reference",))]])
    warn_again(outcome.warnings)
    outcome.check()
    facts, trained = outcome.value
    if not outcome.shared:
        workers.change(replace(work, trained=trained))
    return facts, outcome.shared
