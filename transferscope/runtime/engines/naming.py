"""The names of engines: ``processes:4``, ``dask:tcp://10.0.0.1:8786``, ``slurm:partition=gpu,gpus=1``."""

import os
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from transferscope.errors import InputError, check_whole, near

KINDS = ("processes", "dask", "slurm")
EXAMPLES = "processes:4, dask:tcp://HOST:PORT, dask:local, slurm or slurm:partition=NAME,gpus=1,time=60"
LOCAL = "local"

SLURM_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "partition": "name",
        "account": "name",
        "qos": "name",
        "constraint": "name",
        "gpus": "number",
        "cpus": "number",
        "mem": "size",
        "time": "minutes",
        "jobs": "number",
        "folder": "path",
        "cluster": "slurm or local",
    }
)
"""What may follow ``slurm:``, and what it is."""


@dataclass(frozen=True)
class Place:
    """Where units are carried out.

    Attributes
    ----------
    kind
        One of `KINDS`, or "executor" for one of the caller's.
    workers
        Processes; 0 where it is not for us to say.
    address
        Of Dask's scheduler, or "local".
    options
        Of SLURM.
    executor
        The caller's.
    """

    kind: str
    workers: int = 0
    address: str = ""
    options: Mapping[str, str | int] = field(default_factory=dict)
    executor: Any = None


def place_of(on: Any, executor: Any, jobs: int = 1) -> Place | None:
    """Return where units are carried out, as the arguments say; None for this process.

    Raises
    ------
    InputError
        They contradict each other, or one of them is not as expected.
    """
    if executor is not None:
        if on is not None or jobs != 1:
            raise InputError(
                f"Expected `executor` alone, but got {'`on`' if on is not None else '`jobs`'} too; take one of them"
            )
        if not isinstance(executor, Executor):
            hint = "; of Dask's Client pass client.get_executor()" if type(executor).__name__ == "Client" else ""
            raise InputError(
                f"Expected `executor` to be a concurrent.futures.Executor, but got {type(executor).__name__}"
                f"{hint or '; pass one that has submit()'}"
            )
        return Place("executor", executor=executor)
    if on is not None:
        if jobs != 1:
            raise InputError(f"Expected `on` or `jobs`, but got both; on='processes:{jobs}' is the same as jobs={jobs}")
        return parse_place(on)
    return Place("processes", workers=jobs) if jobs > 1 else None


def parse_place(on: Any) -> Place:
    """Read the name of an engine; raise `InputError` for one that there is not."""
    if not isinstance(on, str):
        raise InputError(f"Expected `on` to be a text like {EXAMPLES}, but got {type(on).__name__}")
    kind, colon, rest = on.partition(":")
    if kind not in KINDS or (colon and not rest):
        raise InputError(f"Expected `on` to be like {EXAMPLES}, but got {on!r}{near(kind, KINDS)}")
    if kind == "processes":
        if rest and not re.fullmatch("[0-9]{1,4}", rest):
            raise InputError(f"Expected a number after 'processes:' in `on`, but got {rest!r}; write processes:4")
        return Place(kind, workers=check_whole("on", int(rest) if rest else os.cpu_count() or 1, 1))
    if kind == "dask":
        return _dask(rest)
    return Place(kind, options=_slurm_options(rest))


def _dask(rest: str) -> Place:
    local = re.fullmatch(f"{LOCAL}(?::([0-9]{{1,4}}))?", rest or LOCAL)
    if local:
        return Place("dask", workers=check_whole("on", int(local[1] or os.cpu_count() or 1), 1), address=LOCAL)
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:[0-9]{1,5}", rest):
        raise InputError(
            "Expected the address of Dask's scheduler after 'dask:' in `on`, like dask:tcp://10.0.0.1:8786, or "
            f"dask:local, but got {rest!r}"
        )
    return Place("dask", address=rest)


def _slurm_options(rest: str) -> dict[str, str | int]:
    options: dict[str, str | int] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if name not in SLURM_OPTIONS or not equals or not value:
            raise InputError(
                f"Expected name=value after 'slurm:' in `on`, with names among {', '.join(SLURM_OPTIONS)}, but got "
                f"{part!r}{near(name, SLURM_OPTIONS)}"
            )
        if SLURM_OPTIONS[name] in ("number", "minutes"):
            if not re.fullmatch("[0-9]{1,7}", value) or (int(value) < 1 and name != "gpus"):
                raise InputError(
                    f"Expected a whole number of {'minutes' if name == 'time' else name} after '{name}=' in `on`, but "
                    f"got {value!r}"
                )
            options[name] = int(value)
        else:
            options[name] = value
    if options.get("cluster", "slurm") not in ("slurm", LOCAL):
        raise InputError(f"Expected cluster=slurm or cluster=local in `on`, but got {options['cluster']!r}")
    return options
