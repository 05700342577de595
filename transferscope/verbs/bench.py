"""What a verb works with: the images and networks that a request names, and where and how they run."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from transferscope.activations.features import LayerFeatures, layer_features
from transferscope.activations.selecting import Layers
from transferscope.arrays import backend
from transferscope.data.images import Transform
from transferscope.data.shared import SharedPixels
from transferscope.data.target import Target
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.networks import loading
from transferscope.networks.loading import Network
from transferscope.networks.zoo import Source, Zoo, load_zoo
from transferscope.protocols.cutting.possible import Possible
from transferscope.results.summary import TargetSummary
from transferscope.runtime.metrics import ACCURACY, Metric
from transferscope.runtime.progress import Report, Reporter
from transferscope.runtime.store import Store
from transferscope.transferability.tasks import task_of
from transferscope.verbs.features import source_features
from transferscope.verbs.possible import possible_protocols
from transferscope.verbs.request import ProbeRequest
from transferscope.verbs.worker import check_worker


class Clock:
    """Seconds spent on each part, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last call to part `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


@dataclass(frozen=True)
class Bench:
    """Everything that the parts of a verb share."""

    target: Target
    probe: Target
    """The images that are looked at."""
    zoo: Zoo
    device: torch.device
    batch_size: int
    seed: int
    trust_code: bool
    reporter: Reporter
    metric: Metric = ACCURACY
    """What transfers are compared by."""
    any_gpu: bool = False
    """Whether it may run on any GPU that there is, because none was named."""
    store: Store = field(default_factory=Store)
    clock: Clock = field(default_factory=Clock)
    _loaded: dict[str, Network] = field(default_factory=dict)

    @classmethod
    def set_up(cls, request: ProbeRequest) -> "Bench":
        """Load the zoo and the images, and draw the probe.

        Raises
        ------
        InputError
            When target or zoo are not as expected, or the zoo's code is not trusted.
        """
        clock = Clock()
        zoo = load_zoo(request.zoo)
        for source in request.sources_of(zoo):
            # Before anything is trained, not after.
            loading.check_trust(source, request.trust_code)
        target = request.load(request.target)
        metric = request.judged_by(target.task)
        probe = target.probe(request.probe_size(len(target.learnt.groups)), request.seed, progress=request.progress)
        if not (told := _told(probe)).all():
            _warn_of_untold(probe, told)
        clock.lap("data")
        return cls(
            target,
            probe,
            zoo,
            backend.resolve_device(request.device),
            request.batch_size,
            request.seed,
            request.trust_code,
            Reporter(request.progress),
            metric,
            request.device in ("auto", "cuda"),
            clock=clock,
        )

    @cached_property
    def values(self) -> np.ndarray:
        """What is learnt of the images of the probe: codes of classes, or the columns that tell images apart."""
        return self.probe.values if (told := _told(self.probe)).all() else self.probe.values[:, told]

    @cached_property
    def pixels(self) -> SharedPixels:
        """The probe, resized once for all networks that take it alike."""
        return SharedPixels(self.probe)

    def packed(self) -> "PackedBench":
        """Return what sets up the same bench in another process."""
        device = self.device.type if self.any_gpu else str(self.device)
        return PackedBench(
            self.target.bare(), self.probe.bare(), self.zoo, device, self.batch_size, self.seed, self.trust_code,
            self.metric,
        )  # fmt: skip

    @property
    def spread(self) -> bool:
        """Whether the GPUs of a machine are to be divided among its workers."""
        return self.any_gpu and self.device.type == "cuda"

    @property
    def n_sound(self) -> int:
        """How many images transfers can be trained on, without those found broken when the probe was decoded."""
        return len(self.target.pool()) - (len(self.probe.broken) - len(self.target.broken))

    @property
    def counts(self) -> np.ndarray:
        """How many images of each class or label transfers can be trained on, broken ones among them."""
        return self.target.learnt.counts(self.target.pool())

    def summary(self) -> TargetSummary:
        """Return what a result says of the target."""
        return TargetSummary(self.target.name, self.probe.n_samples, len(self.target.classes), self.target.hash)

    def load(self, source: Source) -> tuple[nn.Module, Transform]:
        """Return the network of a source, in evaluation mode, and its transform."""
        network = self.network(source)
        return network.module, network.transform

    def network(self, source: Source) -> Network:
        """Return the network of a source; that of the source that was asked for last is kept."""
        if source.name not in self._loaded:
            self._loaded.clear()
            self._loaded[source.name] = loading.load_network(source, seed=self.seed, trust_code=self.trust_code)
        return self._loaded[source.name]

    def possible(self, source: Source, layers: Sequence[str]) -> Possible:
        """Return what a source can be adapted by, cut after these layers, see `possible_protocols`."""
        return possible_protocols(
            source,
            lambda: self.network(source),
            layers,
            seed=self.seed,
            trust_code=self.trust_code,
            store=self.store,
        )

    def source_features(self, source: Source, report: Report, part: slice | None = None) -> LayerFeatures:
        """Return the features of every stage of a source on the probe, or on a part of it, see `layer_features`."""
        return source_features(
            source,
            self.probe,
            seed=self.seed,
            trust_code=self.trust_code,
            store=self.store,
            device=self.device,
            batch_size=self.batch_size,
            report=report,
            load=lambda: self.network(source),
            pixels=self.pixels,
            part=part,
        )

    def features(
        self, build: Callable[[], tuple[nn.Module, Transform]], identity: Any, layers: Layers, report: Report
    ) -> LayerFeatures:
        """Return the features of every stage of a network on the probe, see `layer_features`."""
        return layer_features(
            build,
            identity,
            layers,
            self.probe,
            store=self.store,
            device=self.device,
            batch_size=self.batch_size,
            report=report,
            pixels=self.pixels,
        )


def _told(probe: Target) -> np.ndarray:
    """Return which columns of what is learnt tell images of a probe apart; of classes nothing else can be."""
    task = task_of(probe.task)
    return np.ones(1, bool) if task is None else task.telling(probe.values)


def _warn_of_untold(probe: Target, told: np.ndarray) -> None:
    """Say which labels or numbers are the same in all images of a probe.

    Raises
    ------
    InputError
        All of them are.
    """
    names = [name for name, apart in zip(probe.classes, told, strict=True) if not apart]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    if not told.any():
        raise InputError(
            f"Expected labels to tell the {len(probe)} images that are looked at apart, but {listed} cannot; look at "
            "more, or give others"
        )
    warnings.warn(
        f"The {len(probe)} images that are looked at are all alike in {listed}: no score counts that; look at more for "
        "it to count",
        TransferscopeWarning,
        stacklevel=3,
    )


@dataclass(frozen=True)
class PackedBench:
    """A bench as it is sent to another process: names and hashes of images, the entries of the zoo."""

    target: Target
    probe: Target
    zoo: Zoo
    device: str
    batch_size: int
    seed: int
    trust_code: bool
    metric: Metric

    def unpack(self) -> Bench:
        """Return the bench.

        Raises
        ------
        RefusedError
            The images cannot be read here, or there is no such device.
        """
        device = check_worker(self.probe, 0, self.device)
        return Bench(
            self.target, self.probe, self.zoo, device, self.batch_size, self.seed, self.trust_code, Reporter(False),
            self.metric,
        )  # fmt: skip
