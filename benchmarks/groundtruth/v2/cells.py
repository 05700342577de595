"""One trained cell of the map: a network cut, trained by the recipe and tested, as a row with measure's columns."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from groundtruth.v2 import rows, zoo
from groundtruth.v2.design import Cell
from groundtruth.v2.targets import TARGETS, TEST_IMAGES
from groundtruth.v2.training import Recipe, train
from transferscope import load_target
from transferscope.data.splits import hold_out
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.finetuning import recipes
from transferscope.runtime.footprint import RunMeter
from transferscope.runtime.progress import Report
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import Run


class CellExecutor(Executor):
    """Carries out cells as `measure` does."""

    def row_of(self, cell: Cell) -> dict[str, Any]:
        """Run a cell; whatever goes wrong is its status."""
        layers = [stage.layer for stage in self.stages(cell.source)]
        depth = cell.depth(len(layers))
        run = Run(
            cell.source, cell.target, cell.protocol, depth, len(layers), layers[depth - 1] if depth else "",
            cell.samples_per_class, cell.seed,
        )  # fmt: skip
        started = time.process_time()
        (row,) = self.execute([run])
        return row | {rows.CPU_SECONDS: f"{time.process_time() - started:.2f}"}


class Trainer(CellExecutor):
    """The same, but trains by the recipe of this map."""

    def __init__(self, setup: Setup, recipe: Recipe) -> None:
        super().__init__(setup)
        self.recipe = recipe
        self._cpu_seconds = 0.0

    def _train(self, run: Run, meter: RunMeter, on_epoch: Report) -> np.ndarray:
        lesson, network = self._lesson(run), self.network(run.source)
        net = cut(network, run.depth, run.protocol, len(self.setup.target.classes), seed=run.seed, trust_code=True)
        started = time.process_time()
        train(
            net, network.module.state_dict(), lesson.images, lesson.labels,
            recipe=self.recipe, flips=TARGETS[run.target].flips, seed=run.seed, device=self.device, meter=meter,
        )  # fmt: skip
        self._cpu_seconds = time.process_time() - started
        meter.trials = 1
        return self._predict(run, net)

    def row_of(self, cell: Cell) -> dict[str, Any]:
        """Run a cell; its time on the processor is that of training alone."""
        return super().row_of(cell) | {rows.CPU_SECONDS: f"{self._cpu_seconds:.2f}"}


def trainer(real: Path, images: Path, recipe: Recipe, device: str) -> Trainer:
    """Return what runs the cells of the target in the folder `images`; it is tested on what `frozen.py` tests on."""
    return Trainer(_setup(real, images, device), recipe)


def of_the_product(real: Path, images: Path, device: str) -> CellExecutor:
    """Return the same for the package's own recipe."""
    return CellExecutor(replace(_setup(real, images, device), recipes=recipes()))


def _setup(real: Path, images: Path, device: str) -> Setup:
    target = load_target(images)
    pool, test = hold_out(target, most=TEST_IMAGES)
    return Setup(
        target=target, zoo=load_zoo({"version": 1, "sources": [*zoo.sources(real), zoo.compact()]}),
        pool=pool, test=test, drawn=pool, recipes={}, learning_rates=(), early_stopping=False, device=device,
        batch_size=64, trust_code=True, country="world", states=images,
    )  # fmt: skip
