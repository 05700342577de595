"""Single pilots: really run as `measure` runs its transfers, or taken from the cache."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.activations.stages import Stage
from transferscope.data.bank import Bank
from transferscope.errors import SourceError
from transferscope.networks import loading
from transferscope.prediction.observation import Observation
from transferscope.prediction.pilots import Option
from transferscope.protocols import finetuning
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import CLASSIFICATION, metrics_of
from transferscope.runtime.power import WORLD
from transferscope.runtime.store import digest
from transferscope.runtime.version import __version__
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.pilot_images import PilotImages
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import Run
from transferscope.verbs.running.speed import Speed

_VERSION = 2
"""Goes up when what a pilot does changes, so that earlier ones in the cache are left alone."""


class PilotRunner:
    """Runs pilots by the recipe of the product; what the cache knows is not run again.

    A pilot is kept when it is over, and training that was interrupted goes on where it was.

    Parameters
    ----------
    bench : Bench
        The networks, and where they run.
    images : PilotImages
        What they are trained and tested on.
    stages : mapping of str to sequence of Stage
        Where each source can be cut.
    """

    def __init__(self, bench: Bench, images: PilotImages, stages: Mapping[str, Sequence[Stage]]) -> None:
        self._bench = bench
        self._images = images
        self._stages = stages
        self._recipes = finetuning.recipes()
        self._sizes = {images.samples(size): size for size in images.sizes}
        self._states = bench.store.root / "pilots" / "states"
        self._made: Executor | None = None

    def run(self, option: Option, title: str) -> Observation:
        """Return what a pilot finds; its bar is called `title`.

        Raises
        ------
        SourceError
            The transfer fails; the message says why.
        InputError
            So many images are broken that none can be run.
        """
        source = self._bench.zoo[option.source]
        layer = self._stages[option.source][option.depth - 1].layer if option.depth else ""
        recipe = self._recipes.get(option.protocol)
        size = self._sizes[option.samples]
        key = digest(
            _VERSION, __version__, torch.__version__, self._bench.device.type,
            loading.identity(source, self._bench.seed), source.layers, option.depth, layer, option.protocol, size,
            self._images.seed, None if recipe is None else asdict(recipe), self._images.identity,
        )  # fmt: skip
        with self._bench.store.lease("pilots", key):  # of processes that are asked the same, one runs it
            entry = self._bench.store.get("pilots", key)
            if entry is not None:
                record = entry[1]
            else:
                depths = len(self._stages[option.source])
                run = Run(
                    option.source, self._bench.target.name, option.protocol, option.depth, depths, layer, size,
                    self._images.seed,
                )  # fmt: skip
                record = self.record(run, title)
                self._bench.store.put("pilots", key, {}, record)
        return Observation(
            source=option.source, depth=option.depth, protocol=option.protocol, samples=record["samples"],
            accuracy=record[self._bench.metric.column], tested=self._tested(record), seconds=record["seconds"],
            origin="pilot", link=link_of(self._bench.metric),
        )  # fmt: skip

    def speeds(self, name: str) -> tuple[float, float]:
        """Return the seconds of one image forward, and forward and back, as they were first found on this machine."""
        source, device = self._bench.zoo[name], self._bench.device
        key = digest(
            __version__, torch.__version__, device.type, torch.get_num_threads(),
            loading.identity(source, self._bench.seed),
        )  # fmt: skip
        if (entry := self._bench.store.get("speed", key)) is not None:
            return entry[1]["forward"], entry[1]["step"]
        found = self.found_speeds(name)
        if all(found):  # what fails may not always do so
            self._bench.store.put("speed", key, {}, dict(zip(("forward", "step"), found, strict=True)))
        return found

    def found_speeds(self, name: str) -> tuple[float, float]:
        """Time one image forward, and forward and back."""
        with self._bench.reporter.bar(f"timing {name}") as report:
            speed = Speed(self._executor(name), name)
            report(0, 2)
            forward = speed.forward
            report(1, 2)
            return forward, speed.step

    def record(self, run: Run, title: str) -> dict[str, Any]:
        """Run a pilot; return what the cache keeps of it.

        Raises
        ------
        SourceError
            The transfer fails.
        """
        executor = self._executor(run.source)
        with self._bench.reporter.bar(title) as report:
            started = time.monotonic()
            (row,) = executor.execute([run], report)
            spent = time.monotonic() - started
        with contextlib.suppress(OSError):
            executor.setup.states.rmdir()  # unless another run was interrupted
        if row["status"] != "done":
            raise SourceError(row["status"].removeprefix("failed: "))
        # What was trained before an interruption counts too.
        seconds = max(spent, row["seconds"])
        tested, metrics = self._images.target.values[executor.setup.test], metrics_of(self._images.target.task)
        worth: dict[str, Any] = {"worth": {metric.name: metric.worth_of(tested) for metric in metrics}}
        if self._images.target.task == CLASSIFICATION:  # as it was always kept
            worth = {"tested_by_class": np.bincount(tested).tolist()}
        return {
            "samples": row["samples"], **{metric.column: row[metric.column] for metric in metrics},
            "tested": len(executor.setup.test), **worth, "seconds": seconds,
        }  # fmt: skip

    def _tested(self, record: Mapping[str, Any]) -> int:
        metric = self._bench.metric
        if "worth" in record:
            return int(record["worth"][metric.name])
        return metric.worth(np.array(record["tested_by_class"]))

    def _executor(self, source: str) -> Executor:
        """Return what carries pilots out, made when the first one is not in the cache: then images are decoded."""
        if self._made is None:
            bench = self._bench
            transform = loading.source_transform(bench.zoo[source])
            bank = Bank(self._images.target, transform)
            with bench.reporter.bar("reading images for pilots") as report:
                pool, test, drawn = self._images.decoded(bank, report)
            self._made = Executor(
                Setup(
                    target=self._images.target, zoo=bench.zoo, pool=pool, test=test, drawn=drawn,
                    recipes=self._recipes, learning_rates=(), early_stopping=False, device=str(bench.device),
                    batch_size=bench.batch_size, trust_code=bench.trust_code, country=WORLD, energy=False,
                    states=self._state_folder(), seed=bench.seed,
                ),
                bank,
            )  # fmt: skip
        return self._made

    def _state_folder(self) -> Path:
        """Return where interrupted training is kept, apart from that of other images and other networks."""
        networks = [loading.identity(source, self._bench.seed) for source in self._bench.zoo]
        return self._states / digest(_VERSION, networks, self._images.identity)[:16]
