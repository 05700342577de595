"""A grid of transfers that is ready to run: what is missing, how long it takes, and running it."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from transferscope.errors import is_interrupt
from transferscope.results.measurement import Measurement
from transferscope.results.measurement import Settings as Shared
from transferscope.runtime.engines.naming import Place
from transferscope.runtime.failures import Failure
from transferscope.runtime.leases import lease
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, Metric, metric_of
from transferscope.runtime.progress import Reporter
from transferscope.runtime.sharing import Shard, turn
from transferscope.runtime.store import digest
from transferscope.runtime.version import __version__
from transferscope.verbs.measure.cut_costs import cut_networks
from transferscope.verbs.measure.estimate import Estimate, estimate
from transferscope.verbs.measure.plan import group
from transferscope.verbs.measure.pool import State, carry_out, carry_out_elsewhere, deadline, title
from transferscope.verbs.measure.rows import DONE, ForeignError, Row
from transferscope.verbs.measure.runs import IDENTITY, SETTINGS, RunTable, recorded
from transferscope.verbs.measure.settings import Settings, check, read_settings
from transferscope.verbs.running.executor import Executor
from transferscope.verbs.running.run import Run

logger = logging.getLogger("transferscope")

LEASES = ".leases"
"""Folder of the files that say which process is at work on which runs."""

_SHOWN = ("source", "protocol", "depth", "status")


@dataclass(frozen=True)
class Grid:
    """A grid of transfers that is ready to run.

    Attributes
    ----------
    runs
        All of them, in the order in which they are run.
    folder
        Where the table is.
    settings
        What decides the results beside the identity of each run.
    executor
        Carries the runs out.
    reporter
        Shows how far it is.
    failed
        Sources that could not be loaded.
    retry_failed
        Whether runs that failed before are run again.
    twins
        Runs that are the same transfer under another name, by the one that is carried out: sources that differ in
        their weights alone share what is trained from scratch.
    place
        Where runs are carried out; None for this process.
    shard
        Which of the processes this is that were started with the same command.
    metric
        What "the best" is by.
    """

    runs: Sequence[Run]
    folder: Path
    settings: Settings
    executor: Executor
    reporter: Reporter
    failed: tuple[Failure, ...] = ()
    retry_failed: bool = False
    twins: Mapping[Run, Sequence[Run]] = field(default_factory=dict)
    place: Place | None = None
    shard: Shard | None = None
    metric: Metric = ACCURACY

    def estimate(self) -> Estimate:
        """Say what is missing and about how long it would take; the folder is left as it is."""
        rows = self._recorded()
        there = {identity for identity, row in rows.items() if row["status"] == DONE or not self.retry_failed}
        return estimate(self.executor, self._distinct([run for run in self.runs if run.identity not in there]))

    def run(self, time_budget: float | None = None) -> Measurement:
        """Run what is missing, until the time budget (seconds) is spent; return all results of this grid.

        Raises
        ------
        InputError
            The folder cannot be used, or another measurement runs in it.
        TransferscopeError
            A result cannot be written; what was recorded before is intact.
        """
        with RunTable(self.folder, self.settings) as table:
            self._copy_to_twins(table)
            missing = self._missing(table)
            if done := len(self.runs) - len(missing):
                logger.info("%d of %d runs are in %s already.", done, len(self.runs), table.path)
            if missing:
                self._run(table, self._distinct(missing), time_budget)
            table.refresh()
            with suppress(OSError):  # others are at work there
                (self.folder / LEASES).rmdir()
            if left := len(self._missing(table)):
                logger.info("The time is up; %d runs are left. The same command goes on with them.", left)
            else:
                shutil.rmtree(self.executor.setup.states, ignore_errors=True)
            return self._measurement(table)

    def _run(self, table: RunTable, runs: Sequence[Run], time_budget: float | None) -> None:
        setup, out_of_time = self.executor.setup, deadline(time_budget)
        # What is not alike cannot be stacked: the rates of surgical fine-tuning, and which of several rates is best.
        alone = [run for run in runs if run.protocol == "surgical" or len(setup.learning_rates) > 1]
        stacked = [run for run in runs if run not in alone]
        groups = [*group(stacked, together=setup.together), *group(alone)]
        if self.place is None:
            claim = partial(self._claim, table)
            results = carry_out(self.executor, turn(groups, self.shard), claim, out_of_time=out_of_time)
        else:
            results = carry_out_elsewhere(self.place, setup, groups, out_of_time=out_of_time)
        twins = {run.identity: others for run, others in self.twins.items()}
        done, told = 0, set()
        with self.reporter.bar("runs") as report, closing(results):
            report(done, len(runs))
            for rows in results:
                others = [row | asdict(twin) for row in rows for twin in twins.get(_identity(row), ())]
                table.append([*rows, *others])
                done += len(rows)
                report(done, len(runs))
                for row in rows:
                    if row["status"] != DONE and (row["source"], row["status"]) not in told:
                        told.add((row["source"], row["status"]))
                        logger.warning("%s %s at depth %d %s", *(row[name] for name in _SHOWN))

    @contextmanager
    def _claim(self, table: RunTable, runs: Sequence[Run], wait: bool) -> Iterator[State]:
        """Say whether runs are for this process, among those that were started with the same command."""
        name = digest([run.identity for run in runs])[:32]
        with lease(self.folder / LEASES / name, title(runs), wait=wait) as answer:
            if not wait and not answer:
                yield "taken"
                return
            table.refresh()
            done = all(table.done(run, retry_failed=self.retry_failed) for run in runs)
            yield "done" if done else "mine"

    def _recorded(self) -> dict[tuple[Any, ...], Row]:
        """Return the rows that `run` would go on with, without touching them."""
        rows = recorded(self.folder)
        if not rows:
            return {}
        try:
            check(read_settings(self.folder / SETTINGS), self.settings.record(), list(rows.values()))
        except (ForeignError, OSError) as reason:
            logger.info("The runs in %s would be set aside: %s.", self.folder, reason)
            return {}
        return rows

    def _missing(self, table: RunTable) -> list[Run]:
        return [run for run in self.runs if not table.done(run, retry_failed=self.retry_failed)]

    def _distinct(self, runs: Sequence[Run]) -> list[Run]:
        """Return these runs without those that are twins of others."""
        others = {twin for twins in self.twins.values() for twin in twins}
        return [run for run in runs if run not in others]

    def _copy_to_twins(self, table: RunTable) -> None:
        """Record what is known of runs whose twins were recorded when there was no such source yet."""
        rows = {_identity(row): row for row in table.frame().to_dict("records")}
        missing = set(self._missing(table))
        new = []
        for run, others in self.twins.items():
            twins = [run, *others]
            original = next((twin for twin in twins if twin not in missing), None)
            if original is not None:
                new += [{**rows[original.identity], **asdict(twin)} for twin in twins if twin in missing]
        if new:
            table.append(new)

    def _measurement(self, table: RunTable) -> Measurement:
        frame, setup = table.frame(), self.executor.setup
        asked = {run.identity for run in self.runs}
        identities = frame[list(IDENTITY)].itertuples(index=False, name=None)
        chosen = np.array([identity in asked for identity in identities], dtype=bool)
        truth, task = setup.target.values[setup.test], setup.target.task
        settings: Shared = {
            "target": setup.target.name,
            "target_hash": setup.target.hash,
            "classes": len(setup.target.classes),
            "n_test": len(truth),
            "chance": self.metric.without_looking(truth),
            "energy": self.executor.meter.describe(),
            "device": _device_name(self.executor.device),
            "versions": {"transferscope": __version__, "torch": torch.__version__},
        }
        if task != CLASSIFICATION:
            settings["task"] = task
        if self.metric is not metric_of(None, task):
            settings["metric"] = self.metric.name
        rows = frame[chosen].reset_index(drop=True)
        return Measurement(rows, settings, failed=self.failed, networks=self._networks())

    def _networks(self) -> pd.DataFrame:
        tables = []
        for source in dict.fromkeys(run.source for run in self.runs):
            try:
                tables.append(cut_networks(self.executor, source))
            except (Exception, SystemExit) as error:  # its runs have failed too, and say why
                if is_interrupt(error):
                    raise KeyboardInterrupt from error
                logger.debug("%s cannot be timed: %s", source, error)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in IDENTITY)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
