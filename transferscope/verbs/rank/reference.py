"""The scratch reference of a ranking: trained on the target and cached, or handed in by the user."""

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transferscope.activations.features import LayerFeatures
from transferscope.activations.selecting import Layers
from transferscope.data.images import Transform
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.networks import checkpoint_files, checkpoints, loading
from transferscope.networks.compact import CompactResNet
from transferscope.networks.zoo import COMPACT, OWN, Source
from transferscope.prediction.selection import ScratchCandidate
from transferscope.protocols import scratch
from transferscope.protocols.scratch import ScratchResult, Split
from transferscope.protocols.training.recipe import Recipe, TrainingRecord
from transferscope.results.summary import Reference
from transferscope.runtime.progress import Report
from transferscope.runtime.regular import is_regular
from transferscope.runtime.seeding import seeded
from transferscope.runtime.store import digest
from transferscope.runtime.version import __version__
from transferscope.verbs.bench import Bench

_VERSION = 5
"""Of how references are trained; those of another version in the cache are left alone."""
_FIRST = "stem.0.weight"


@dataclass(frozen=True)
class ReferenceNetwork:
    """A reference network, built whenever it is asked for, and how it came to be."""

    name: str
    build: Callable[[], tuple[nn.Module, Transform]]
    """Returns the network, in evaluation mode, and its transform."""
    identity: list[Any]
    """Everything that decides what `build` returns."""
    layers: Layers
    record: TrainingRecord | None = None
    """None when the network was handed in."""
    accuracy: float | None = None
    n_held_out: int = 0
    n_train: int = 0
    entry: tuple[str, str, dict[str, Any], dict[str, Any]] | None = None
    """What the cache keeps of it, as `Store.put` takes it; None when it was handed in."""
    held_out_worth: int = 0
    """How many images measure its accuracy as exactly as those held out, see `Metric.worth`."""

    def summary(self) -> Reference:
        """Return what a result says of it."""
        return Reference(
            network=self.name,
            held_out_accuracy=self.accuracy,
            held_out_samples=self.n_held_out,
            trained_on=self.n_train,
            epochs=0 if self.record is None else self.record.epochs,
            stopped="given" if self.record is None else self.record.stopped,
        )


@dataclass(frozen=True)
class TrainedReference:
    """A reference network and its features on the probe."""

    network: ReferenceNetwork
    features: LayerFeatures

    def facts(self) -> "ReferenceFacts":
        """Return what an answer needs of it."""
        last = self.features.stages[-1]
        return ReferenceFacts(
            self.network.summary(), len(self.features.stages), last.params, last.flops, self.network.held_out_worth
        )


@dataclass(frozen=True)
class ReferenceFacts:
    """What an answer says of a reference, which may have been trained elsewhere."""

    summary: Reference
    stages: int
    params: float
    flops: float
    """Of the whole network, for one image."""
    held_out_worth: int
    """As that of `ReferenceNetwork`."""

    def candidate(self) -> ScratchCandidate | None:
        """Return it as something to choose; None for a network that was handed in."""
        accuracy = self.summary.held_out_accuracy
        if accuracy is None:
            return None
        held_out = self.summary.held_out_samples
        return ScratchCandidate(self.summary.network, accuracy, held_out, self.stages, self.params, self.flops)


@dataclass(frozen=True)
class ReferenceMaker:
    """Makes the reference that a source is compared with; equal requests are answered from the cache.

    Parameters
    ----------
    kind : str
        "compact" (a small residual network, one for all sources), "own" (each source's own architecture,
        re-initialised), the name of a source in the zoo, or a checkpoint of `networks.CompactResNet`.
    recipe : Recipe
        How it is trained.
    bench : Bench
        The images, and where and how networks run.
    """

    kind: str
    recipe: Recipe
    bench: Bench

    def given_source(self) -> Source | None:
        """Return the zoo entry that was handed in as the reference, if one was."""
        if self.kind in (COMPACT, OWN) or is_regular(self.kind):
            return None
        names = [source.name for source in self.bench.zoo]
        if self.kind in names:
            return self.bench.zoo[self.kind]
        raise InputError(
            f"Expected `reference` to be 'compact', 'own', the name of a source in the zoo or a checkpoint file, "
            f"but got {self.kind!r}; the zoo has {', '.join(names)}"
        )

    def candidates(self) -> list[Source]:
        """Return the sources of the zoo but for the one that was handed in as the reference."""
        given = self.given_source()
        candidates = [source for source in self.bench.zoo if source is not given]
        if not candidates:
            raise InputError(
                f"Expected the zoo to hold sources beside the reference {self.kind!r}, but there are none; add the "
                "networks to be ranked"
            )
        return candidates

    def make(self, source: Source | None, report: Report) -> TrainedReference:
        """Return the reference for `source` with its features; only the kind "own" looks at which source it is."""
        network = self.network(source, report)
        features = self.bench.features(network.build, network.identity, network.layers, report)
        return TrainedReference(network, features)

    def network(self, source: Source | None, report: Report) -> ReferenceNetwork:
        """Return the network of the reference for `source`, trained if it has to be."""
        if (given := self.given_source()) is not None:
            return ReferenceNetwork(
                given.name,
                lambda: self.bench.load(given),
                loading.identity(given, self.bench.seed),
                given.layers,
            )
        transform = scratch.compact_transform(self.bench.probe)
        if self.kind not in (COMPACT, OWN):
            path = Path(self.kind)
            identity = ["compact checkpoint", checkpoint_files.file_digest(path), asdict(transform)]
            return ReferenceNetwork(
                path.name, lambda: (_read_compact(path, transform), transform), ["given", identity], "auto"
            )
        if self.kind == COMPACT:
            classes = len(self.bench.target.classes)
            return self._trained(
                "compact residual network",
                lambda: (_seeded_compact(classes, transform, self.bench.seed), transform),
                ["compact", asdict(transform)],
                "auto",
                report,
            )
        assert source is not None
        return self._trained(
            f"{source.name}'s own architecture",
            lambda: self._own(source),
            # Sources that differ in their weights alone share one network.
            ["own", loading.architecture(source)],
            source.layers,
            report,
        )

    def _own(self, source: Source) -> tuple[nn.Module, Transform]:
        net = loading.build_untrained(source, seed=self.bench.seed, trust_code=self.bench.trust_code)
        transform = loading.source_transform(source, net)
        return scratch.with_head(net, len(self.bench.target.classes), transform, self.bench.seed), transform

    def _trained(
        self,
        name: str,
        build: Callable[[], tuple[nn.Module, Transform]],
        identity: Any,
        layers: Layers,
        report: Report,
    ) -> ReferenceNetwork:
        split = scratch.split_probe(self.bench.target, self.bench.probe, self.bench.seed)
        identity = [
            _VERSION, identity, asdict(self.recipe), self.bench.seed, self.bench.probe.hash, split.held_out.hash,
            __version__, torch.__version__, self.bench.device.type,
        ]  # fmt: skip
        key = digest(*identity)
        with self.bench.store.lease("reference", key):  # of processes that are asked the same, one trains
            weights, result, record = self._kept_or_trained(key, build, split, report)

        def trained() -> tuple[nn.Module, Transform]:
            net, transform = build()
            net.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
            return net.eval(), transform

        metric = self.bench.metric
        accuracy = float(result.figures[metric.column])
        if math.isnan(accuracy):
            raise InputError(
                f"Expected the {result.n_held_out} images held out to tell how good a reference is, but their "
                f"{metric.title} is not defined; raise `samples` or hand in a `reference`"
            )
        return ReferenceNetwork(
            name, trained, ["scratch", key], layers,
            result.record, accuracy, result.n_held_out, len(split.train), ("reference", key, weights, record),
            metric.worth_of(split.held_out.values),
        )  # fmt: skip

    def _kept_or_trained(
        self, key: str, build: Callable[[], tuple[nn.Module, Transform]], split: Split, report: Report
    ) -> tuple[dict[str, Any], ScratchResult, dict[str, Any]]:
        """Return weights, what training gave, and the record of it, from the cache where they are there."""
        if (entry := self.bench.store.get("reference", key)) is not None:
            weights, record = entry
            return weights, ScratchResult(**{**record, "record": TrainingRecord(**record["record"])}), record
        net, transform = build()
        result = scratch.train_from_scratch(
            net, transform, self.bench.probe, split,
            recipe=self.recipe, seed=self.bench.seed, device=self.bench.device, on_epoch=report,
        )  # fmt: skip
        self._warn_of_budget(result.record, self.recipe.most_epochs(len(split.train)))
        weights, record = {name: value.cpu().numpy() for name, value in net.state_dict().items()}, asdict(result)
        self.bench.store.put("reference", key, weights, record)
        return weights, result, record

    def _warn_of_budget(self, record: TrainingRecord, epochs: int) -> None:
        if record.stopped == "budget":
            # Fewer epochs are no help where the least number of steps decides how many there are.
            advice = "Raise the budget or lower the epochs" if epochs == self.recipe.epochs else "Raise the budget"
            warnings.warn(
                f"The reference's time budget of {self.recipe.limit_s:g} s ran out after {record.epochs} of {epochs} "
                f"epochs: how far it got depends on this machine's speed. {advice} for a repeatable answer",
                TransferscopeWarning,
                stacklevel=2,
            )


def _seeded_compact(classes: int, transform: Transform, seed: int) -> CompactResNet:
    with seeded(seed):
        return scratch.compact_network(classes, transform)


def _read_compact(path: Path, transform: Transform) -> nn.Module:
    """Load a checkpoint of the compact network, whose width and classes its own tensors tell."""
    weights = checkpoint_files.read_checkpoint(path)
    prefix = next((name.removesuffix(_FIRST) for name in weights if name.endswith(_FIRST)), "")
    try:
        width, classes = len(weights[prefix + _FIRST]), len(weights[f"{prefix}head.weight"])
    except KeyError as error:
        raise InputError(
            f"Expected `reference` {path} to hold the weights of transferscope.networks.CompactResNet, but "
            f"{error} is missing; put another network into the zoo and pass its name"
        ) from error
    net = scratch.compact_network(classes, transform, width=width)
    checkpoints.load_checkpoint(net, path)
    return net.eval()
