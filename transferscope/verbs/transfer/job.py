"""A transfer that is ready to be run: its images, its source, where that is cut, and how its model is built again."""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from transferscope.data.bank import sound
from transferscope.data.splits import held_out_split, hold_out, sizes_within
from transferscope.data.target import Target
from transferscope.errors import SourceError, TransferscopeError, is_interrupt
from transferscope.networks import loading
from transferscope.networks.blueprint import blueprint, is_compact
from transferscope.networks.zoo import Zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.delivery.network import DeliveredNetwork, Form, delivered, moved
from transferscope.protocols.heads.modules import HeadScores
from transferscope.protocols.heads.several import check_protocol
from transferscope.runtime.checks import ALL
from transferscope.runtime.failures import describe
from transferscope.runtime.footprint import Footprint
from transferscope.runtime.metrics import OF_EACH
from transferscope.runtime.progress import Reporter
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__
from transferscope.verbs.measure.request import MeasureRequest
from transferscope.verbs.measure.settings import Settings, held_out
from transferscope.verbs.running.executor import Executor, Setup
from transferscope.verbs.running.run import PROTOCOLS, Run
from transferscope.verbs.transfer.choice import Choice
from transferscope.verbs.transfer.model_files import ModelRecipe, check_same_network
from transferscope.verbs.transfer.request import TransferRequest

_VERSION = 1
"""Goes up when what a transfer does changes, so that one of before is not taken for the same."""


@dataclass(frozen=True)
class Job:
    """A transfer that is ready to be run.

    Attributes
    ----------
    choice
        What is transferred.
    executor
        Has the network and the images, and carries the run out.
    run
        As `measure` would call it.
    settings
        What the run's row in a table holds for.
    files
        What the architecture needs to be built again, by path below the folder of the model.
    model
        How; without the head of a protocol that fits one.
    identity
        Tells it from other transfers: equal ones give equal models on one machine.
    """

    choice: Choice
    executor: Executor
    run: Run
    settings: Settings
    files: Mapping[str, bytes]
    model: ModelRecipe
    identity: str

    @classmethod
    def prepare(cls, request: TransferRequest, target: Target, choice: Choice, reporter: Reporter) -> "Job":
        """Divide the images, load the source and find out whether its model could be delivered; nothing is trained.

        Raises
        ------
        InputError
            The images cannot be divided, or the protocol has no such depth.
        SourceError
            The source cannot be loaded, or its model not be built again.
        """
        source = choice.source
        check_protocol(choice.protocol, target.task)
        pool, test = hold_out(target, seed=request.seed)
        grid = MeasureRequest(
            target=target, zoo=request.zoo, country=request.country, device=request.device, seed=request.seed
        )
        executor = Executor(
            Setup(
                target=target, zoo=Zoo(version=1, sources=(source,)), pool=pool, test=test, drawn=pool,
                recipes=grid.recipes, learning_rates=(), early_stopping=False, device=request.device,
                batch_size=request.batch_size, trust_code=request.trust_code or is_compact(source),
                country=request.country, states=Path(), seed=request.seed,
            )
        )  # fmt: skip
        with reporter.bar(f"loading {source.name}"):
            transform = executor.network(source.name).transform
            layers = tuple(stage.layer for stage in executor.stages(source.name))
        depth, layer = choice.place(layers)
        with reporter.bar("reading images") as report:
            seeds = (request.seed,)
            pool, test, drawn = sound(target, pool, test, (ALL,), seeds, executor.bank(source.name), report)
        (size,) = sizes_within((ALL,), target.strata[pool])
        run = Run(source.name, target.name, choice.protocol, depth, len(layers), layer, size, request.seed)
        recipe = grid.recipes.get(choice.protocol)
        settings = Settings(
            target.name, target.hash, held_out(pool, test), executor.device.type, grid.decisive(),
            {source.name: loading.fingerprint(source)}, len(test), target.task,
        )  # fmt: skip
        identity = digest(
            _VERSION, __version__, torch.__version__, settings.device, loading.identity(source, request.seed),
            source.layers, asdict(run), None if recipe is None else asdict(recipe), target.hash, settings.held_out,
            asdict(transform),
        )  # fmt: skip
        states = Store().root / "transfers" / identity[:16]
        executor.setup = replace(executor.setup, pool=pool, test=test, drawn=drawn, states=states)
        plan = blueprint(source)
        form = {"features": Form((layer,), {}), "embedding": Form(layers, {})}.get(PROTOCOLS[run.protocol].kind, Form())
        model = ModelRecipe(target.classes, transform, target.reading, plan.entry, form, target.task)
        return cls(choice, executor, run, settings, plan.files, model, identity)

    @property
    def target(self) -> Target:
        """The images."""
        return self.executor.setup.target

    @property
    def network(self) -> loading.Network:
        """The source."""
        return self.executor.network(self.run.source)

    @property
    def held_out(self) -> str:
        """Say which images are measured on."""
        name = held_out_split(self.target)
        if name is None:
            drawn = f"drawn by the seed from {OF_EACH[self.target.task]} before training"
            return f"{drawn}; a ranking may have looked at them"
        count, n_test = self.target.split.count(name), len(self.executor.setup.test)
        return f"the {name} split of the target" + (f", {n_test} of its {count} images" if n_test < count else "")

    def carry_out(self, reporter: Reporter) -> tuple[DeliveredNetwork, Footprint]:
        """Train or fit, and return the network as whoever loads it will build it, with what that cost.

        Training that was interrupted goes on where it was.

        Raises
        ------
        InputError, SourceError
            It cannot be done with this source, or training diverges.
        """
        executor, run = self.executor, self.run
        adapted, built = self._checked()
        try:
            if PROTOCOLS[run.protocol].kind == "trained":
                with reporter.bar(f"training {run.source}") as report, executor.meter.run() as meter:
                    adapted.take(executor.trained(run, meter, report).cpu())
                if (scale := executor.scale(run)) is not None:
                    adapted.in_units_of(scale)
                with contextlib.suppress(OSError):
                    executor.setup.states.rmdir()
            else:
                with reporter.bar(f"computing features of {run.source}"):
                    executor.prepare_features(run.source)
                with executor.meter.run() as meter:
                    arrays = executor.fitted(run, meter).arrays
                adapted.head, built.head = HeadScores(arrays), HeadScores(arrays)
        except TransferscopeError:
            raise
        except (Exception, SystemExit) as error:  # whatever a network's code raises
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            reason = describe(run.source, error, executor.setup.batch_size)
            raise SourceError(f"source {run.source!r}: {reason}") from error
        built.load_state_dict(adapted.state_dict())
        return built, meter.footprint()

    def with_head_of(self, network: DeliveredNetwork) -> ModelRecipe:
        """Return the recipe of a model with the head that `network` has."""
        shapes = None if network.head is None else {key: tuple(t.shape) for key, t in network.head.state_dict().items()}
        return replace(self.model, form=replace(self.model.form, head=shapes))

    def _checked(self) -> tuple[DeliveredNetwork, DeliveredNetwork]:
        """Return the network that is delivered, before it is adapted, and one that was built from the recipe.

        Raises
        ------
        SourceError
            They differ, or the protocol would make two networks of one.
        """
        run, setup = self.run, self.executor.setup
        adapted = delivered(self.network, self.model.form, len(self.target.classes), self.target.task)
        with tempfile.TemporaryDirectory(prefix="transferscope-") as folder:
            for name, content in self.files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            built = self.model.build(Path(folder), trust_code=setup.trust_code)
        check_same_network(built, adapted, run.source)
        if run.protocol in ("reinit", "defrost") and run.depth:
            # Before anything is trained, not after it.
            parts = cut(self.network, run.depth, "defrost", len(self.target.classes), trust_code=setup.trust_code)
            adapted.take(moved(parts))
        return adapted, built
