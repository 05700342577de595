"""The transfers that train: what each keeps, changes, chooses among and costs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transferscope.errors import InputError, SourceError
from transferscope.networks.compact import CompactResNet
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import Source
from transferscope.protocols import finetuning
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.finetuning import Lesson, recipes, train, train_together
from transferscope.protocols.training import resuming
from transferscope.protocols.training.inputs import CachedViews
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.footprint import Meter

pytestmark = pytest.mark.bounds

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.02)
STEM, FIRST_TWO = ("stem.",), ("stem.", "blocks.0.")

FACTORY = """
from torch import nn
from transferscope.networks import CompactResNet

def build():
    return CompactResNet(3, width=4)

def layers():
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 3))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "nets.py").write_text(FACTORY)
    for seed in (1, 2):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            net = CompactResNet(3, width=4).train()
            net(torch.randn(8, 3, 16, 16))  # batch norm remembers something
        save_file(net.state_dict(), folder / f"{seed}.safetensors")
    return folder


def loaded(folder, function="build", checkpoint=None):
    source = Source(
        name="small", loader="python", factory=f"{folder / 'nets.py'}:{function}", transform={"size": 16},
        **({} if checkpoint is None else {"checkpoint": folder / checkpoint}),
    )  # fmt: skip
    return load_network(source, trust_code=True)


@pytest.fixture(scope="module")
def network(folder):
    return loaded(folder, checkpoint="1.safetensors")


@pytest.fixture(scope="module")
def meter():
    return Meter()


def lesson(seed=0, *, validated=True, n=18):
    """Noise images (n, 3, 16, 16) of three classes, each with a channel of its own; every third is for validation."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randn(n, 3, 16, 16, generator=draw)
    images[torch.arange(n), labels] += 1.0
    return Lesson(images, labels, np.arange(n - n // 3, n) if validated else None)


def trained(network, protocol, depth, meter, given=None, *, recipe=RECIPE, seed=0, **options):
    """Train; return the network, the training and the footprint."""
    with meter.run() as run:
        net, training = train(
            lambda: cut(network, depth, protocol, 3, seed=seed, trust_code=True), given or lesson(),
            recipe=recipe, seed=seed, device=CPU, meter=run, **options,
        )  # fmt: skip
        return net, training, run.footprint()


def weights(net):
    """By the network's own keys, without the counters of batch norm."""
    state = {key.removeprefix("prefix.net.").removeprefix("rest.net.").removeprefix("rest."): value
             for key, value in net.state_dict().items()}  # fmt: skip
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def assert_close(net, other, **tolerance):
    ours, theirs = weights(net), weights(other)
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], msg=key, **tolerance)


class TestWhatIsTrained:
    @pytest.mark.parametrize("protocol", ["reinit", "defrost"])
    def test_the_prefix_stays_the_source_s_bit_by_bit_and_the_rest_changes(self, network, meter, protocol):
        start = weights(cut(network, 2, protocol, 3, seed=0, trust_code=True))
        net, _, _ = trained(network, protocol, 2, meter)
        source = network.module.state_dict()
        for key, value in weights(net).items():
            frozen = key.startswith(FIRST_TWO)
            assert torch.equal(value, start[key]) == frozen, key
            assert not frozen or torch.equal(value, source[key])
        assert not net.training

    @pytest.mark.parametrize(("protocol", "depth"), [("finetune", 2), ("defrost", 0), ("surgical", 8), ("scratch", 0)])
    def test_everything_changes(self, network, meter, protocol, depth):
        start = weights(cut(network, depth, protocol, 3, seed=0, trust_code=True))
        net, _, _ = trained(network, protocol, depth, meter)
        for key, value in weights(net).items():
            assert not torch.equal(value, start[key]), key

    @pytest.mark.parametrize(("protocol", "depth"), [("defrost", 3), ("defrost", 0), ("surgical", 8)])
    def test_all_weights_start_from_the_source(self, network, meter, protocol, depth):
        net, _, _ = trained(network, protocol, depth, meter, recipe=replace(RECIPE, learning_rate=1e-12))
        source = network.module.state_dict()
        parameters = {key for key, _ in network.module.named_parameters() if not key.startswith("head.")}
        for key, value in weights(net).items():
            if key in parameters:
                torch.testing.assert_close(value, source[key], rtol=0, atol=1e-8, msg=key)

    def test_finetune_starts_from_the_source_up_to_the_cut(self, network, meter):
        net, _, _ = trained(network, "finetune", 2, meter, recipe=replace(RECIPE, learning_rate=1e-12))
        source, found = network.module.state_dict(), weights(net)
        for key, _ in network.module.named_parameters():
            if key.endswith("conv1.weight") or key.endswith("stem.0.weight"):
                assert torch.allclose(found[key], source[key], rtol=0, atol=1e-8) == key.startswith(FIRST_TWO), key

    def test_scratch_knows_nothing_of_the_source_s_weights(self, folder, network, meter):
        net, _, _ = trained(network, "scratch", 0, meter)
        other, _, _ = trained(loaded(folder, checkpoint="2.safetensors"), "scratch", 0, meter)
        assert_close(net, other, rtol=0, atol=0)
        another_seed, _, _ = trained(network, "scratch", 0, meter, seed=1)
        assert not torch.equal(weights(another_seed)["stem.0.weight"], weights(net)["stem.0.weight"])

    def test_surgical_rates_are_relative_gradient_norms(self, network, meter, monkeypatch):
        given, seen = lesson(), {}
        real = finetuning.fit
        monkeypatch.setattr(finetuning, "fit", lambda *args, **options: seen.update(options) or real(*args, **options))
        trained(network, "surgical", 8, meter, given)

        net = cut(network, 8, "surgical", 3, seed=0, trust_code=True)  # in evaluation mode
        nn.functional.cross_entropy(net(given.images[:12]), given.labels[:12]).backward()
        stages = ["stem", *(f"blocks.{i}" for i in range(6))]
        ratio = {}
        for stage in stages:
            own = [p for name, p in net.named_parameters() if name.startswith(f"rest.{stage}.")]
            gradient, weight = (torch.cat([t.flatten() for t in ts]).norm() for ts in ([p.grad for p in own], own))
            ratio[stage] = float(gradient / weight.detach())
        names = {name for name, _ in net.named_parameters() if "head" not in name}
        assert seen["rates"].keys() == names
        for name, rate in seen["rates"].items():
            stage = next(stage for stage in stages if name.startswith(f"rest.{stage}."))
            assert rate == pytest.approx(ratio[stage] / max(ratio.values()), rel=1e-3), name

    def test_the_same_seed_gives_the_same_network(self, network, meter):
        state = torch.get_rng_state()
        first, second = (trained(network, "reinit", 2, meter, seed=5)[0] for _ in range(2))
        assert_close(first, second, rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), state)


class TestKeptViews:
    def test_they_give_what_running_the_prefix_in_every_step_gives(self, network, meter, monkeypatch):
        recipe = replace(RECIPE, shift=0.0, epochs=3)
        kept, ours, cheap = trained(network, "reinit", 4, meter, recipe=recipe)
        monkeypatch.setattr(finetuning, "KEPT_BYTES", 0)
        anew, theirs, dear = trained(network, "reinit", 4, meter, recipe=recipe)
        assert_close(kept, anew, rtol=1e-4, atol=1e-6)
        assert ours.record.validation_loss == pytest.approx(theirs.record.validation_loss, rel=1e-4)
        assert ours.record.validation_accuracy == theirs.record.validation_accuracy
        assert cheap.flops < dear.flops
        assert "features" in cheap.seconds
        assert "features" not in dear.seconds
        for key, value in weights(anew).items():
            assert not key.startswith(STEM) or torch.equal(value, network.module.state_dict()[key])

    def test_the_first_view_is_the_images_as_they_are_and_the_others_are_shifted(self, network, meter, monkeypatch):
        given, seen = lesson(), []
        real = finetuning.fit
        monkeypatch.setattr(finetuning, "fit", lambda *args, **rest: seen.append(args) or real(*args, **rest))
        net, _, _ = trained(network, "reinit", 2, meter, given, recipe=replace(RECIPE, views=3, epochs=4))
        _, inputs, labels, (held, held_labels) = seen[0]
        assert isinstance(inputs, CachedViews)
        with torch.inference_mode():
            expected = net.prefix(given.images)
        torch.testing.assert_close(inputs.views[0], expected[:12])
        torch.testing.assert_close(held, expected[12:])
        assert torch.equal(labels, given.labels[:12])
        assert torch.equal(held_labels, given.labels[12:])
        assert len(inputs.views) == 3
        assert not torch.allclose(inputs.views[1], inputs.views[0])
        assert not torch.allclose(inputs.views[1], inputs.views[2])

    @pytest.mark.parametrize(("views", "epochs", "kept"), [(2, 4, 2), (16, 3, 3), (3, 3, 3)])
    def test_there_are_as_many_as_asked_for_or_epochs_and_none_where_there_is_no_room(
        self, network, meter, monkeypatch, views, epochs, kept
    ):
        seen = []
        real = finetuning.fit
        monkeypatch.setattr(finetuning, "fit", lambda *args, **rest: seen.append(args[1]) or real(*args, **rest))
        # 12 images of 4 channels of 16 × 16 numbers of 4 bytes are a view.
        for room in (kept * 12 * 4 * 16 * 16 * 4, kept * 12 * 4 * 16 * 16 * 4 - 1):
            monkeypatch.setattr(finetuning, "KEPT_BYTES", room)
            trained(network, "reinit", 2, meter, recipe=replace(RECIPE, views=views, epochs=epochs))
        assert len(seen[0].views) == kept
        assert torch.equal(seen[1], lesson().images[:12])


class TestLearningRates:
    def test_the_best_by_validation_is_returned_and_each_is_a_trial(self, network, meter):
        rates = (1e-6, 0.05, 0.005)
        alone = {rate: trained(network, "finetune", 3, meter, learning_rates=(rate,)) for rate in rates}
        records = {rate: training.record for rate, (_, training, _) in alone.items()}
        best = max(rates, key=lambda rate: (records[rate].validation_accuracy, -records[rate].validation_loss))
        net, training, footprint = trained(network, "finetune", 3, meter, learning_rates=rates)
        assert (training.learning_rate, training.trials) == (best, 3)
        assert_close(net, alone[best][0], rtol=0, atol=0)
        assert footprint.flops == sum(footprint.flops for _, _, footprint in alone.values())

    def test_one_that_diverges_costs_the_others_nothing(self, network, meter):
        _, training, _ = trained(network, "finetune", 3, meter, learning_rates=(1e30, 0.02))
        assert (training.learning_rate, training.trials) == (0.02, 2)

    def test_when_all_diverge_it_is_an_error(self, network, meter):
        with pytest.raises(SourceError, match=r"diverged in epoch 1 .*learning rate, now 1e\+35"):
            trained(network, "finetune", 3, meter, learning_rates=(1e30, 1e35))

    def test_without_validation_images_the_first_is_taken(self, network, meter):
        _, training, _ = trained(network, "finetune", 3, meter, lesson(validated=False), learning_rates=(0.01, 0.02))
        assert (training.learning_rate, training.trials) == (0.01, 1)
        assert np.isnan(training.record.validation_accuracy)
        assert training.record.best_epoch == 2


class TestTogether:
    def together(self, network, protocol, depth, meter, lessons):
        nets = [cut(network, depth, protocol, 3, seed=seed, trust_code=True) for seed in range(len(lessons))]
        with meter.run() as run:
            seeds = range(len(lessons))
            outcomes = train_together(nets, lessons, recipe=RECIPE, seeds=seeds, device=CPU, meter=run)
            return nets, outcomes, run.footprint()

    @pytest.mark.parametrize(("protocol", "depth"), [("reinit", 3), ("finetune", 3), ("scratch", 0)])
    def test_each_ends_as_it_would_alone_and_all_are_paid_for(self, network, meter, protocol, depth):
        lessons = [lesson(seed) for seed in range(2)]
        nets, outcomes, footprint = self.together(network, protocol, depth, meter, lessons)
        flops = 0
        for seed, (net, outcome) in enumerate(zip(nets, outcomes, strict=True)):
            alone, training, cost = trained(network, protocol, depth, meter, lessons[seed], seed=seed)
            assert_close(net, alone, rtol=1e-3, atol=1e-4)
            assert outcome.validation_loss == pytest.approx(training.record.validation_loss, rel=1e-3)
            assert not net.training
            flops += cost.flops
        assert footprint.flops == flops

    def test_one_that_diverges_does_not_harm_the_others(self, network, meter):
        lessons = [lesson(seed) for seed in range(3)]
        lessons[1].images[:12] = float("inf")
        nets, outcomes, _ = self.together(network, "finetune", 3, meter, lessons)
        assert isinstance(outcomes[1], SourceError)
        for seed in (0, 2):
            alone, _, _ = trained(network, "finetune", 3, meter, lessons[seed], seed=seed)
            assert_close(nets[seed], alone, rtol=1e-3, atol=1e-4)

    def test_lessons_of_different_size_are_an_input_error(self, network, meter):
        with pytest.raises(InputError, match="shape of inputs"):
            self.together(network, "finetune", 3, meter, [lesson(), lesson(n=21)])


class TestCosts:
    def test_operations_are_those_of_the_formula(self, folder, meter):
        net = loaded(folder, "layers")
        prefix, head, images, held, epochs = 2 * 768 * 8, 2 * 8 * 3, 12, 6, 2
        # The first layer has no gradient to hand on.
        everything = epochs * (images * (2 * prefix + 3 * head) + held * (prefix + head))
        assert trained(net, "scratch", 0, meter)[2].flops == everything
        assert trained(net, "finetune", 1, meter)[2].flops == everything
        views = epochs  # no more are of use
        tuned = epochs * (images * 2 * head + held * head) + prefix * (views * images + held)
        assert trained(net, "reinit", 1, meter, recipe=replace(RECIPE, views=4))[2].flops == tuned
        # Rates of stages: a gradient of every image before training.
        expected = everything + images * (2 * prefix + 3 * head)
        assert trained(net, "surgical", 1, meter)[2].flops == expected

    def test_a_frozen_prefix_is_much_cheaper_than_training_all(self, network, meter):
        recipe = replace(RECIPE, epochs=8, views=2)
        reinit = trained(network, "reinit", 7, meter, recipe=recipe)[2].flops
        assert reinit < trained(network, "finetune", 7, meter, recipe=recipe)[2].flops / 4

    def test_an_interrupted_run_goes_on_and_costs_what_it_took_in_all(self, network, meter, tmp_path, monkeypatch):
        monkeypatch.setattr(resuming, "INTERVAL_S", 0)
        recipe, state = replace(RECIPE, epochs=4), tmp_path / "states" / "run.pt"
        undisturbed, _, _ = trained(network, "defrost", 1, meter, recipe=recipe)

        def interrupt(done, _total):
            if done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trained(network, "defrost", 1, meter, recipe=recipe, state=state, on_epoch=interrupt)
        assert state.is_file()
        net, training, footprint = trained(network, "defrost", 1, meter, recipe=recipe, state=state)
        assert_close(net, undisturbed, rtol=0, atol=0)
        assert not state.exists()
        assert training.record.epochs == 4
        assert footprint.seconds["training"] >= training.record.seconds


class TestRecipes:
    def test_every_protocol_that_trains_has_one(self):
        for optimiser in ("sgd", "adamw"):
            found = recipes(optimiser, 7)
            assert set(found) == {"reinit", "finetune", "defrost", "surgical", "scratch"}
            assert {recipe.epochs for recipe in found.values()} == {7}
            assert {recipe.min_steps for recipe in found.values()} == {300}, "few images are no reason to train little"
            assert {recipe.optimiser for recipe in found.values()} == {optimiser}
            assert found["scratch"].learning_rate > found["finetune"].learning_rate

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match=r"`optimiser` to be one of sgd, adamw, but got 'adam'"):
            recipes("adam")
        with pytest.raises(InputError, match="`epochs` to be a whole number of at least 1"):
            recipes("sgd", 0)


def test_the_source_and_the_lesson_are_left_alone(network, meter):
    before, given = copy.deepcopy(network.module.state_dict()), lesson()
    images = given.images.clone()
    for protocol, depth in (("reinit", 2), ("surgical", 8)):
        trained(network, protocol, depth, meter, given)
    assert torch.equal(given.images, images)
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, before[key]), key
