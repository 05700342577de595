"""Carries out single runs of a grid: a source, a protocol, a depth, a draw of images in, a row of results out."""

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from transferscope.activations.capture import resolve_stages
from transferscope.activations.features import LayerFeatures
from transferscope.activations.stages import Stage
from transferscope.arrays import backend
from transferscope.data.bank import Bank
from transferscope.data.splits import draw, validation_part
from transferscope.data.target import Target
from transferscope.errors import SourceError, is_interrupt
from transferscope.networks import loading
from transferscope.networks.zoo import Zoo
from transferscope.protocols import finetuning
from transferscope.protocols.cutting.cut import CutNetwork, cut
from transferscope.protocols.heads.fitting import fit_protocol
from transferscope.protocols.heads.linear import HeadFit
from transferscope.protocols.training.objective import OBJECTIVES, Scale
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.failures import describe
from transferscope.runtime.footprint import Footprint, Meter, RunMeter
from transferscope.runtime.metrics import REGRESSION, metrics_of
from transferscope.runtime.power import JOULES_PER_KWH
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.store import Store, digest
from transferscope.verbs.features import source_features
from transferscope.verbs.running.pace import Pace, pace
from transferscope.verbs.running.run import PROTOCOLS, Run

logger = logging.getLogger("transferscope")


@dataclass(frozen=True)
class Setup:
    """Everything that the runs of one grid share; can be sent to another process.

    Attributes
    ----------
    target
        All images.
    zoo
        The sources.
    pool, test
        Indices into the target that runs train on and are measured on.
    drawn
        Those of the pool that any run trains on.
    recipes
        By protocol, see `finetuning.recipes`.
    learning_rates
        What trained protocols choose among on validation images; empty for the recipe's own.
    early_stopping
        Whether trained protocols set validation images aside to stop by, also where no rate is to be chosen.
    country
        Whose electricity is counted, see `footprint.Meter`.
    states
        Folder of the files from which interrupted training goes on.
    seed
        Of the weights of a source that no file gives.
    together
        Whether trained runs that differ in the seed alone are trained as one batched network.
    jobs
        Processes that share the machine.
    energy
        Whether electricity is counted at all.
    """

    target: Target
    zoo: Zoo
    pool: np.ndarray
    test: np.ndarray
    drawn: np.ndarray
    recipes: Mapping[str, Recipe]
    learning_rates: tuple[float, ...]
    early_stopping: bool
    device: str
    batch_size: int
    trust_code: bool
    country: str
    states: Path
    seed: int = 0
    together: bool = False
    jobs: int = 1
    energy: bool = True

    def drawn_by(self, run: Run) -> np.ndarray:
        """Return the indices into the target of the images that a run trains on."""
        return self.pool[draw(self.target.strata[self.pool], run.samples_per_class, run.seed)]

    def row(self, run: Run) -> dict[str, Any]:
        """Return what is known of a run beforehand."""
        return {**asdict(run), "samples": len(self.drawn_by(run))}


class Executor:
    """Carries out the runs of a grid in this process.

    Networks, images and features are kept from run to run; features also in the cache on disk.

    Parameters
    ----------
    setup : Setup
        What the runs share.
    *banks : Bank
        Images that are decoded already.
    """

    def __init__(self, setup: Setup, *banks: Bank) -> None:
        self.setup = setup
        self.device = backend.resolve_device(setup.device)
        self.meter = Meter(setup.country, device=self.device, workers=setup.jobs, energy=setup.energy)
        self._store = Store()
        self._banks = {bank.transform: bank for bank in banks}
        self.network = lru_cache(maxsize=1)(self._load)
        """Returns a source's network by its name."""
        self._features = lru_cache(maxsize=1)(self._extract)
        self._without_features: dict[str, Exception] = {}
        """Sources whose features cannot be computed, which would take long to find out for every run."""

    def bank(self, source: str) -> Bank:
        """Return the images as `source` sees them; those of all sources with one transform are one bank."""
        transform = self.network(source).transform
        return self._banks.setdefault(transform, Bank(self.setup.target, transform))

    def stages(self, source: str) -> tuple[Stage, ...]:
        """Return where `source` can be cut."""
        network = self.network(source)
        sample = network.transform.blank()
        return resolve_stages(network.module.cpu(), network.source.layers, sample, cuts_only=True)

    def untrained(self, source: str) -> CutNetwork:
        """Return the architecture of `source`, drawn anew with a head for the target, in training mode."""
        setup = self.setup
        net = cut(self.network(source), 0, "scratch", len(setup.target.classes), trust_code=setup.trust_code)
        return net.to(self.device).train()

    def execute(self, runs: Sequence[Run], on_epoch: Report = silent) -> list[dict[str, Any]]:
        """Carry out a run, or several that are trained together, and return their rows.

        Whatever goes wrong in one is its status. Together each is charged an equal part of what all of them cost.
        """
        trained = PROTOCOLS[runs[0].protocol].kind == "trained"
        try:
            if not trained:
                self.prepare_features(runs[0].source)
            with self.meter.run() as meter:
                if len(runs) > 1:
                    outcomes: Sequence[np.ndarray | SourceError] = self._train_together(runs, meter, on_epoch)
                elif trained:
                    outcomes = [self._train(runs[0], meter, on_epoch)]
                else:
                    outcomes = [self._fit_head(runs[0], meter)]
            footprint = meter.footprint()
        except (Exception, SystemExit) as error:  # whatever a run raises must not cost the others
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            logger.debug("%s", traceback.format_exc())
            if len(runs) > 1:  # one that cannot be trained with others may be trained alone
                return [row for run in runs for row in self.execute([run], on_epoch)]
            return [self._failed(runs[0], error)]
        return [
            self._failed(run, outcome)
            if isinstance(outcome, SourceError)
            else self.row(run, outcome, footprint, 1 / len(runs))
            for run, outcome in zip(runs, outcomes, strict=True)
        ]

    def prepare_features(self, source: str) -> tuple[Stage, ...]:
        """Compute the features of all images, shared work of which each run is charged its part; return the stages."""
        return self._features(source)[0].stages

    def _failed(self, run: Run, error: BaseException) -> dict[str, Any]:
        reason = describe(run.source, error, self.setup.batch_size)
        trace = "".join(traceback.format_exception(error))
        return self.setup.row(run) | {"status": f"failed: {' '.join(reason.split())}", "trace": trace}

    def row(self, run: Run, predictions: np.ndarray, footprint: Footprint, share: float = 1.0) -> dict[str, Any]:
        """Return the row of a run that has ended, from what it predicts for the test images and its share of a cost."""
        truth = self.setup.target.values[self.setup.test]
        seconds = {phase: share * spent for phase, spent in footprint.seconds.items()}
        return self.setup.row(run) | {
            **{metric.column: metric.of(predictions, truth) for metric in metrics_of(self.setup.target.task)},
            "seconds": sum(seconds.values()),
            "flops": share * footprint.flops,
            "kwh": share * footprint.kwh,
            "kgco2e": share * footprint.kgco2e,
            "peak_memory": footprint.peak_memory,
            "trials": footprint.trials,
            "status": "done",
            "phases": seconds,
        }

    def _load(self, source: str) -> loading.Network:
        return loading.load_network(self.setup.zoo[source], trust_code=self.setup.trust_code, seed=self.setup.seed)

    def _fit_head(self, run: Run, meter: RunMeter) -> np.ndarray:
        head = self.fitted(run, meter)
        features, _ = self._features(run.source)
        test = self._rows(self.setup.test)
        layers = [layer[test] for layer in features.arrays.values()]
        return head.predict(layers if PROTOCOLS[run.protocol].kind == "embedding" else layers[run.depth - 1])

    def fitted(self, run: Run, meter: RunMeter) -> HeadFit:
        """Return the head of a run, fitted to the features of its training images, for which it is charged its part."""
        drawn = self.setup.drawn_by(run)
        features, pace = self._features(run.source)
        rows = self._rows(drawn)
        # A network that is cut after a stage is charged for its prefix alone, and for the images it learns from.
        last = features.stages[run.depth - 1]
        seconds = len(drawn) * pace.seconds[last.layer]
        meter.charge("features", seconds, len(drawn) * last.flops, pace.watts * seconds / JOULES_PER_KWH)
        learnt_from = [layer[rows] for layer in features.arrays.values()]
        with meter.phase("head"):
            head = self.fit_head(run, learnt_from)
        meter.trials = head.trials
        return head

    def fit_head(self, run: Run, layers: Sequence[np.ndarray]) -> HeadFit:
        """Fit the head of a run to the features of its images at every stage, each (n_samples, n_features)."""
        target, drawn = self.setup.target, self.setup.drawn_by(run)
        validation = validation_part(target.strata[drawn], run.seed)
        return fit_protocol(
            run.protocol, layers, run.depth, target.values[drawn], target.task, validation, run.seed, run.layer
        )

    def _train(self, run: Run, meter: RunMeter, on_epoch: Report) -> np.ndarray:
        return self._predict(run, self.trained(run, meter, on_epoch))

    def trained(self, run: Run, meter: RunMeter, on_epoch: Report = silent) -> CutNetwork:
        """Return the network of a run, trained on its images; training that was interrupted goes on where it was."""
        net, training = finetuning.train(
            lambda: self._cut(run), self._lesson(run),
            recipe=self.setup.recipes[run.protocol], learning_rates=self.setup.learning_rates, seed=run.seed,
            device=self.device, meter=meter, on_epoch=on_epoch,
            state=self.setup.states / f"{digest(asdict(run))[:16]}.pt",
        )  # fmt: skip
        meter.trials = training.trials
        return net

    def _train_together(self, runs: Sequence[Run], meter: RunMeter, on_epoch: Report) -> list[np.ndarray | SourceError]:
        nets = [self._cut(run) for run in runs]
        records = finetuning.train_together(
            nets, [self._lesson(run) for run in runs],
            recipe=self.setup.recipes[runs[0].protocol], seeds=[run.seed for run in runs],
            device=self.device, meter=meter, on_epoch=on_epoch,
        )  # fmt: skip
        meter.trials = 1
        return [
            record if isinstance(record, SourceError) else self._predict(run, net)
            for run, net, record in zip(runs, nets, records, strict=True)
        ]

    def _cut(self, run: Run) -> CutNetwork:
        classes, trust_code = len(self.setup.target.classes), self.setup.trust_code
        return cut(self.network(run.source), run.depth, run.protocol, classes, seed=run.seed, trust_code=trust_code)

    def _lesson(self, run: Run) -> finetuning.Lesson:
        drawn, bank = self.setup.drawn_by(run), self.bank(run.source)
        bank.add(drawn)
        target, scale = self.setup.target, self.scale(run)
        values = target.values[drawn] if scale is None else scale.applied(target.values[drawn])
        chooses = self.setup.early_stopping or len(self.setup.learning_rates) > 1
        validation = validation_part(target.strata[drawn], run.seed) if chooses else None
        objective = OBJECTIVES[target.task]
        return finetuning.Lesson(bank.images(drawn), objective.tensor(values), validation, objective)

    def scale(self, run: Run) -> Scale | None:
        """Return what the numbers that a run learns are standardised by; None where it learns none."""
        target = self.setup.target
        return Scale.of(target.values[self.setup.drawn_by(run)]) if target.task == REGRESSION else None

    def _predict(self, run: Run, net: CutNetwork) -> np.ndarray:
        test, bank, scale = self.setup.test, self.bank(run.source), self.scale(run)
        bank.add(test)
        predictions = OBJECTIVES[self.setup.target.task].predictions
        with torch.inference_mode():
            batches = bank.batches(test, self.setup.batch_size)
            outputs = torch.cat([predictions(net(batch.to(self.device))).cpu() for batch in batches]).numpy()
        return outputs if scale is None else scale.undone(outputs.astype(np.float64))

    def _rows(self, indices: np.ndarray) -> list[int]:
        """Return where images of the target stand among those whose features are computed."""
        place = {int(index): i for i, index in enumerate(self._all_indices())}
        return [place[int(index)] for index in indices]

    def _all_indices(self) -> np.ndarray:
        return np.concatenate([self.setup.drawn, self.setup.test])

    def pace(self, network: loading.Network, stages: Sequence[Stage], batch_size: int) -> Pace:
        """Return how fast a source runs in batches of this size."""
        return pace(network, stages, batch_size, device=self.device, store=self._store, meter=self.meter)

    def _extract(self, source: str) -> tuple[LayerFeatures, Pace]:
        """Return the features of all images of the grid at every stage, and what they are charged by."""
        if source in self._without_features:
            raise self._without_features[source]
        try:
            return self._extracted(source)
        except Exception as error:
            self._without_features[source] = error
            raise

    def _extracted(self, source: str) -> tuple[LayerFeatures, Pace]:
        setup, network, indices = self.setup, self.network(source), self._all_indices()

        def prepare(chosen: np.ndarray) -> Iterator[torch.Tensor]:
            bank = self.bank(source)
            bank.add(indices[chosen])
            return bank.batches(indices[chosen], setup.batch_size)

        features = source_features(
            network, setup.target.subset(indices), store=self._store, device=self.device,
            batch_size=setup.batch_size, prepare=prepare,
        )  # fmt: skip
        # Heads are fitted on the CPU.
        on_host = {layer: backend.to_numpy(array) for layer, array in features.arrays.items()}
        return replace(features, arrays=on_host), self.pace(network, features.stages, setup.batch_size)
