"""One source fine-tuned on one draw of a target: how its parameters moved, and what was known of them beforehand."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import trace
from transferscope.data.bank import Bank
from transferscope.data.splits import draw
from transferscope.data.target import Target
from transferscope.errors import InputError, SourceError
from transferscope.networks import loading
from transferscope.networks.checkpoint_files import file_digest
from transferscope.networks.loading import Network
from transferscope.networks.zoo import Source
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.training.recipe import Recipe
from transferscope.protocols.training.single import evaluate
from transferscope.runtime.progress import Report
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__
from transferscope.verbs.features import source_features
from transferscope.verbs.parameters.companions import gradient_signal_to_noise, representation_similarity
from transferscope.verbs.parameters.domain import Domain, domain
from transferscope.verbs.parameters.initial import Initial, initial_weights
from transferscope.verbs.parameters.trajectory import LOSS_IMAGES, Trajectory, follow
from transferscope.verbs.parameters.weights import blocks, weights_of

VERSION = 1
"""Goes up when what is measured changes its meaning, so that cached runs of an earlier meaning are not used."""

REDRAWS_FROM = 1000
"""Added to the seed of redraws: many a source was trained from seed 0, and a redraw is to be another one."""


@dataclass(frozen=True)
class Draw:
    """Images of a target to fine-tune on, and those that the result is measured on."""

    target: Target
    pool: np.ndarray
    """Indices into the target that images are drawn from."""
    test: np.ndarray
    samples_per_class: int
    seed: int

    @property
    def indices(self) -> np.ndarray:
        """Of the drawn images, in the target."""
        return self.pool[draw(self.target.labels[self.pool], self.samples_per_class, self.seed)]


@dataclass(frozen=True)
class Moved:
    """What was seen of one fine-tuning."""

    trajectory: Trajectory
    """Its names are keys of the source's state dict."""
    gradient_snr: Mapping[str, float]
    """By layer, before the transfer."""
    cka: Mapping[str, float]
    """By layer: similarity of what it makes of the training images before and after."""
    accuracy: float
    """On the test images, at the end."""


class Mover:
    """Fine-tunes one source, whole and with a new head, on draws of targets.

    Parameters
    ----------
    source : Source
        Of a zoo.
    recipe : Recipe
        How it is fine-tuned.
    groups : "auto", "tensor" or mapping
        As in `layerwise.transferability`.
    redraws, seed : int
        Of the initial weights, where the zoo does not give them.
    device, batch_size, trust_code, store
        Where to run, images in one forward pass, whether factories may run, and where runs are kept.

    Raises
    ------
    SourceError
        When the source or its initial weights cannot be loaded.
    InputError
        When `groups` does not fit it.
    """

    def __init__(
        self,
        source: Source,
        *,
        recipe: Recipe,
        groups: str | Mapping[str, Any],
        redraws: int,
        seed: int,
        device: torch.device,
        batch_size: int,
        trust_code: bool,
        store: Store,
    ) -> None:
        self._recipe, self._device, self._batch_size, self._store = recipe, device, batch_size, store
        self._trust_code = trust_code
        self.network: Network = loading.load_network(source, trust_code=trust_code, seed=seed)
        self.initial: Initial = initial_weights(
            source, redraws=redraws, seed=REDRAWS_FROM + seed, trust_code=trust_code
        )
        try:
            weights = weights_of(self.network.module, "its weights")
        except InputError as error:
            raise SourceError(f"source {source.name!r}: {error}") from error
        heads = classifiers(trace(self.network.module, self.network.transform.blank()))
        own_classes = {f"{head.layer}.weight" for head in heads}
        self.names = tuple(key for key in weights if key not in own_classes)
        self.groups: dict[str, list[str]] = blocks(self.names, groups)
        first = file_digest(source.initial) if source.initial else [redraws, REDRAWS_FROM + seed]
        self._identity = (
            VERSION, __version__, torch.__version__, device.type, loading.fingerprint(source), first,
            asdict(recipe), self.groups,
        )  # fmt: skip

    def move(self, wanted: Draw, bank: Bank, report: Report) -> Moved:
        """Fine-tune the source, or return what is in the cache.

        Parameters
        ----------
        wanted : Draw
            Which images.
        bank : Bank
            Holds them, for the source's transform.
        report : Report
            Told of the epochs.

        Raises
        ------
        SourceError
            When training diverges, or the source cannot be given a new head.
        """
        key = digest(*self._identity, wanted.target.hash, wanted.indices.tolist(), wanted.test.tolist(), wanted.seed)
        if (entry := self._store.get("parameters", key)) is not None:
            arrays, record = entry
            trajectory = Trajectory.from_arrays(self.names, record["steps_per_epoch"], arrays)
            return Moved(trajectory, _numbers(record["gradient_snr"]), _numbers(record["cka"]), record["accuracy"])
        moved = self._move(wanted, bank, report)
        record = {
            "steps_per_epoch": moved.trajectory.steps_per_epoch,
            "gradient_snr": dict(moved.gradient_snr),
            "cka": dict(moved.cka),
            "accuracy": moved.accuracy,
        }
        self._store.put("parameters", key, moved.trajectory.arrays(), record)
        return moved

    def _move(self, wanted: Draw, bank: Bank, report: Report) -> Moved:
        target, device = wanted.target, self._device
        classes = len(target.classes)
        whole = cut(self.network, 0, "defrost", classes, seed=wanted.seed, trust_code=self._trust_code)
        net = whole.rest.to(device)
        images, labels = bank.images(wanted.indices), torch.from_numpy(target.labels[wanted.indices])
        try:
            snr = gradient_signal_to_noise(net, images, labels, self.groups)
            trajectory = follow(
                net, self.initial.draws, images, labels,
                classes=classes, names=self.names, recipe=self._recipe, seed=wanted.seed, on_epoch=report,
            )  # fmt: skip
        except SourceError as error:
            raise SourceError(f"source {self.network.name!r} on {target.name!r}: {error}") from error
        cka = representation_similarity(
            self.network.module, net, list(self.groups), images[:LOSS_IMAGES],
            batch_size=self._batch_size, device=str(device),
        )  # fmt: skip
        tested = torch.from_numpy(target.labels[wanted.test])
        _, accuracy = evaluate(net, bank.images(wanted.test), tested, batch_size=self._batch_size)
        return Moved(trajectory, snr, cka, accuracy)

    def domain(self, target: Target, source_images: Target | None, seed: int, report: Report) -> Domain:
        """Describe a target in the feature space of the source: its diversity, and its distance to the source's images.

        That is the pooled output before the classifier.

        Parameters
        ----------
        target : Target
            Images of it, as many for every target: of fewer images the Fréchet distance is larger.
        source_images : Target, optional
            Images of the source, where they are known.
        seed : int
            Decides which of those are taken: at most as many as of the target.
        report : Report
            Told of the images.
        """
        drawn = None if source_images is None else source_images.probe(target.n_samples, seed)
        of_source = None if drawn is None else self._features(drawn, report)
        return domain(of_source, self._features(target, report), target.labels)

    def _features(self, probe: Target, report: Report) -> Any:
        features = source_features(
            self.network, probe, store=self._store, device=self._device, batch_size=self._batch_size, report=report
        )
        return features.arrays[features.stages[-1].layer]


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items()}
