"""Units of work: what they share travels once, by its hash; a worker of the same versions carries them out."""

import contextlib
import hashlib
import os
import pickle
import socket
import threading
import time
import traceback
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from transferscope import errors
from transferscope.errors import InputError, TransferscopeError, TransferscopeWarning, is_interrupt
from transferscope.runtime.provenance import versions
from transferscope.runtime.regular import is_regular, read_regular
from transferscope.runtime.store import home, write_atomically

JOBS = "jobs"
"""Folder in the cache: what the units of questions share that are being answered."""
_DECIDING = ("transferscope", "torch", "numpy")
"""Packages whose versions have to be those of the process that asks."""
_KEPT = 2


class Work(Protocol):
    """What the units of one question share, and how one of them is carried out. Can be pickled."""

    def perform(self, *arguments: Any, shared: bool) -> Any:
        """Carry out the unit of these arguments; `shared` says whether the cache is that of the process that asks."""


@dataclass(frozen=True)
class Job:
    """The work of one question, by its hash.

    Attributes
    ----------
    key
        SHA-256 (hex) of the pickled work.
    versions
        Package and version, of the process that asks.
    home
        Its cache folder, in which the work lies.
    content
        The pickled work, for workers that do not see that folder; None as long as none has said so.
    """

    key: str
    versions: tuple[tuple[str, str], ...]
    home: str
    content: bytes | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """Where the work lies for whoever sees the cache folder."""
        return Path(self.home) / JOBS / f"{self.key}.pickle"


@dataclass(frozen=True)
class Unit:
    """A piece of work that needs no other and may be carried out anywhere, twice too: names and hashes, no data.

    Attributes
    ----------
    job
        What it is part of.
    title
        What people call it.
    arguments
        For `Work.perform`.
    """

    job: Job
    title: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes
    ----------
    value
        What `Work.perform` returned.
    worker
        Who carried it out.
    shared
        Whether that worker has the cache folder of the process that asks.
    warnings
        What was warned of.
    error, kind, trace
        Why it failed, in a sentence, by an error of which class, and where; empty when it did not.
    refused
        Whether it was the worker that could not, whatever the unit.
    lacks_job
        Whether all that it lacks is the work, which has to be sent along.
    """

    value: Any = None
    worker: str = ""
    shared: bool = False
    warnings: tuple[str, ...] = ()
    error: str = ""
    kind: str = ""
    trace: str = field(default="", repr=False)
    refused: bool = False
    lacks_job: bool = False

    def check(self) -> None:
        """Raise what the unit raised, as an error of its class where that is one of ours."""
        if self.error:
            raise getattr(errors, self.kind, TransferscopeError)(self.error)


class RefusedError(Exception):
    """The worker can carry out no unit of a job; the text says why."""


def write_job(work: Work) -> tuple[Job, bytes]:
    """Put work where workers with the same cache find it; return its job, and the pickled work.

    Raises
    ------
    InputError
        The work, most likely a target of the caller's, cannot be sent to other processes.
    """
    try:
        content = pickle.dumps(work)
    except Exception as error:  # whatever a dataset of the caller's holds
        raise InputError(
            "Expected a target that can be sent to other processes, for `jobs`, `on` and `executor`, but it cannot "
            f"({' '.join(str(error).split())}); use jobs=1 and none of the others"
        ) from error
    job = Job(hashlib.sha256(content).hexdigest(), own_versions(), str(home().absolute()))
    with contextlib.suppress(OSError):  # then it is sent along
        job.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(job.path, content)
    return job, content


def remove_job(job: Job) -> None:
    """Take away what the units of a job shared."""
    with contextlib.suppress(OSError):
        job.path.unlink()
        job.path.parent.rmdir()  # unless another question is being answered


def own_versions() -> tuple[tuple[str, str], ...]:
    """Return the packages whose versions decide results, with those that are installed here."""
    installed = versions(_DECIDING)
    return tuple((name, installed.get(name, "none")) for name in _DECIDING)


def worker_name() -> str:
    """Return what this process is called in messages: machine, process, and the task of the batch system."""
    task = "_".join(filter(None, map(os.environ.get, ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"))))
    task = task or os.environ.get("SLURM_JOB_ID", "")
    return f"{socket.gethostname()} (process {os.getpid()}{f', SLURM job {task}' if task else ''})"


_one_at_a_time = threading.Lock()
"""Warnings and torch's settings are those of a process; of threads in it one works at a time."""
_works: dict[str, Work] = {}


def perform(unit: Unit) -> Outcome:
    """Carry out a unit, in a worker. Whatever goes wrong is in the outcome, which can be sent back."""
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TransferscopeWarning)
        made = Outcome(worker=worker_name())
        try:
            _check_versions(unit.job)
            made = replace(made, shared=_share_cache(unit.job))
            work = _work(unit.job)
            if work is None:
                return replace(made, error="it lacks what the units share", lacks_job=True)
            made = replace(made, value=work.perform(*unit.arguments, shared=made.shared))
        except (Exception, SystemExit) as error:  # whatever a network's code raises must not cost the others
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            text = " ".join(str(error).split())
            known = isinstance(error, TransferscopeError | RefusedError)
            made = replace(
                made,
                error=text if known and text else f"{type(error).__name__}: {text}",
                kind=type(error).__name__,
                trace="".join(traceback.format_exception(error)),
                refused=isinstance(error, RefusedError),
            )
        return replace(made, warnings=tuple(dict.fromkeys(str(each.message) for each in caught)))


def _check_versions(job: Job) -> None:
    here = dict(own_versions())
    for name, version in job.versions:
        if here.get(name) != version:
            raise RefusedError(
                f"it has {name} {here.get(name)}, but the process that asks has {version}; install the same version on "
                "both"
            )


def _share_cache(job: Job) -> bool:
    """Use the cache of the process that asks, where this one sees it."""
    if is_regular(home() / JOBS / job.path.name):
        return True
    if is_regular(job.path):
        os.environ["TRANSFERSCOPE_HOME"] = job.home
        return True
    return False


def _work(job: Job) -> Work | None:
    """Return the work of a job, unpickled once in this process; None where it neither lies here nor came along."""
    if job.key not in _works:
        content = job.content
        if content is None:
            try:
                content = read_regular(home() / JOBS / job.path.name)
            except OSError:
                return None
        if hashlib.sha256(content).hexdigest() != job.key:  # a pickle of somebody else's would run code
            raise RefusedError(f"what the units share was changed in {home() / JOBS}; ask again")
        try:
            work: Work = pickle.loads(content)
        except Exception as error:  # a class that is defined in the caller's script, most likely
            raise RefusedError(
                f"it cannot read what the units share ({type(error).__name__}: {' '.join(str(error).split())}); put "
                "classes of your own into a module that workers can import"
            ) from error
        for key in list(_works)[: max(0, len(_works) + 1 - _KEPT)]:
            del _works[key]
        _works[job.key] = work
    return _works[job.key]


def failures_file(job: Job) -> Path:
    """Return where failures of the units of a job are written down."""
    return home() / "failures" / f"{time.strftime('%Y-%m-%d')}-{job.key[:12]}.log"


def note_failure(job: Job, title: str, outcome: Outcome) -> Path | None:
    """Write down which unit failed, where, and its whole traceback; None where that cannot be."""
    path = failures_file(job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            when = time.strftime("%H:%M:%S")
            file.write(f"{when} {title} on {outcome.worker or 'a worker'}: {outcome.error}\n{outcome.trace}\n")
    except OSError:
        return None
    return path
