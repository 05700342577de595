"""Features of every stage from one pass, whoever asks: the cache knows images by their content."""

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.activations.capture import collect, resolve_stages
from transferscope.activations.features import layer_features
from transferscope.arrays.backend import to_numpy
from transferscope.data.images import Transform
from transferscope.data.target import load_target
from transferscope.errors import CaptureError, TransferscopeWarning
from transferscope.networks import CompactResNet
from transferscope.runtime.store import Store
from transferscope.runtime.trained import mark_untrained

CPU = torch.device("cpu")
TRANSFORM = Transform(16, (0.5,) * 3, (0.5,) * 3)


def target(n=7, seed=0):
    images = np.random.default_rng(seed).integers(0, 255, (n, 16, 16, 3), dtype=np.uint8)
    return load_target((images, np.arange(n) % 2))


def tensors(images):
    return torch.stack([TRANSFORM(images.image(index)) for index in range(len(images))])


LOOK = [4, 2, 2]  # whether the network gives the same again


@pytest.fixture
def net():
    torch.manual_seed(0)
    return CompactResNet(4, width=4).eval()


@pytest.fixture
def ask(tmp_path, net):
    """Return a function that asks for features of images, and notes the sizes of the batches that run."""
    batches = []

    def note(_net, args, _output):
        if args[0].any():  # the samples that stages are found with are black
            batches.append(len(args[0]))

    net.register_forward_hook(note)

    def features(images, identity="net", layers="auto", batch_size=4, **options):
        batches.clear()
        return layer_features(
            lambda: (net, TRANSFORM), identity, layers, images,
            store=Store(tmp_path), device=CPU, batch_size=batch_size, **options,
        )  # fmt: skip

    features.batches = batches
    return features


def same(found, expected):
    assert list(found.arrays) == list(expected.arrays)
    assert found.stages == expected.stages
    for layer, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[layer], array)
        assert found.arrays[layer].dtype == array.dtype == np.float32
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_features_are_those_of_collect_and_probabilities_those_of_the_network(ask, net):
    net.train()
    images = target(6)
    found = ask(images, batch_size=3)
    stages = resolve_stages(net, "auto", torch.zeros(1, 3, 16, 16), cuts_only=True)
    assert found.stages == stages
    expected = collect(net, tensors(images).split(3), [stage.layer for stage in stages])
    assert list(found.arrays) == list(expected)
    for layer, array in expected.items():
        np.testing.assert_array_equal(found.arrays[layer], array)
        assert found.arrays[layer].dtype == np.float32
    assert net.training
    assert net.blocks.training
    assert len(net._forward_hooks) == 1  # that of this test
    with torch.no_grad():
        logits = net.eval()(tensors(images))
    np.testing.assert_allclose(found.probabilities, torch.softmax(logits, 1), atol=1e-6)


def test_operations_come_with_the_stages(ask):
    flops = [stage.flops for stage in ask(target()).stages]
    assert flops == sorted(flops)
    # The stem's 3 × 3 convolution from 3 to 4 channels at 16 × 16, a multiply-add counted as two.
    assert flops[0] == 2 * 3 * 4 * 9 * 16 * 16


def test_stages_come_in_firing_order_and_second_calls_by_their_number(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.last = nn.Conv2d(3, 5, 3)
            self.first = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.last(self.act(self.first(self.act(x))))

    torch.manual_seed(0)
    net, images = Twice(), target()
    for _ in range(2):  # from the cache too
        found = layer_features(
            lambda: (net, TRANSFORM), 0, ["first", "act"], images, store=Store(tmp_path), device=CPU, batch_size=3
        )
        assert list(found.arrays) == [stage.layer for stage in found.stages] == ["act", "first", "act:2"]
        with torch.no_grad():
            expected = net.first(tensors(images).relu()).relu().mean((2, 3))
        np.testing.assert_allclose(found.arrays["act:2"], expected, rtol=1e-5)


def test_the_same_images_are_not_run_again(ask):
    first = ask(target())
    assert ask.batches == [*LOOK, 4, 3]
    again = ask(target(), batch_size=2)
    assert ask.batches == []
    assert again.key == first.key
    same(again, first)


def test_only_images_of_new_content_are_run(ask):
    images = target(8)
    old = ask(images.subset([5, 1, 3]))
    assert ask.batches == [3, 1, 1, 1, 3]
    everything = ask(images)
    assert ask.batches == [*LOOK, 4, 1]
    layer = everything.stages[-1].layer
    np.testing.assert_array_equal(everything.arrays[layer][[5, 1, 3]], old.arrays[layer])
    turned = ask(images.subset(np.arange(8)[::-1]))
    assert ask.batches == []
    np.testing.assert_array_equal(turned.arrays[layer], everything.arrays[layer][::-1])
    np.testing.assert_allclose(turned.probabilities, everything.probabilities[::-1], atol=1e-6)
    assert turned.key != everything.key
    same(ask(images), everything)


def test_what_comes_in_parts_is_what_comes_at_once(ask, tmp_path):
    images = target(8)
    for chosen in ([0, 1, 2], [2, 3, 7], [6, 1, 5, 4]):
        ask(images.subset(chosen))
    parts = ask(images)
    assert ask.batches == []
    # A file for each time that something was run.
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    whole = ask(images, identity="another name of it")
    for layer, array in whole.arrays.items():
        np.testing.assert_allclose(parts.arrays[layer], array, atol=1e-5)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-5)


def test_copies_of_an_image_are_run_once(ask):
    found = ask(target(4).subset([0, 1, 0, 2, 1]))
    assert ask.batches == [3, 1, 1, 1, 3]
    for array in found.arrays.values():
        assert len(array) == 5
        np.testing.assert_array_equal(array[0], array[2])
        np.testing.assert_array_equal(array[1], array[4])


@pytest.mark.parametrize("other", [{"identity": "other"}, {"layers": ["blocks.*"]}])
def test_another_network_or_other_layers_are_another_question(ask, other):
    ask(target())
    ask(target(), **other)
    assert ask.batches == [*LOOK, 4, 3]


def test_images_may_be_prepared_elsewhere(ask, net):
    images = target(6)
    ask(images.subset([4, 2]))
    asked = []

    def prepare(chosen):
        asked.append(chosen.tolist())
        return tensors(images)[chosen].split(3)

    reports = []
    found = ask(images, prepare=prepare, report=lambda *done: reports.append(done))
    assert asked == [[0, 1, 3, 5]]
    assert not reports  # whoever prepares images tells of them
    for layer, array in collect(net, tensors(images).split(3), list(found.arrays)).items():
        np.testing.assert_allclose(found.arrays[layer], array, atol=1e-5)


def test_progress_is_told_in_images_that_are_run(ask):
    reports = []
    for _ in range(2):
        ask(target(9), report=lambda *done: reports.append(done))
        assert reports == [(4, 9), (8, 9), (9, 9)]


def test_no_images_are_an_error(ask):
    with pytest.raises(CaptureError):
        ask(target().subset([]))


def test_a_cache_that_cannot_be_written_costs_only_the_cache(ask, tmp_path):
    (tmp_path / "features").write_text("in the way")
    for _ in range(2):
        with pytest.warns(TransferscopeWarning, match="TRANSFERSCOPE_HOME"):
            found = ask(target())
        assert len(found.arrays[found.stages[0].layer]) == 7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_features_are_those_of_the_cpu(net, tmp_path):
    def on(device):
        return layer_features(
            lambda: (net, TRANSFORM), "net", "auto", target(),
            store=Store(tmp_path), device=torch.device(device), batch_size=3,
        )  # fmt: skip

    expected = on("cpu").arrays
    for found in (on("cuda"), on("cuda")):  # from the cache too
        for layer, array in expected.items():
            np.testing.assert_allclose(to_numpy(found.arrays[layer]), array, rtol=1e-2, atol=1e-3)


def test_outputs_that_nobody_has_trained_are_no_predictions(ask, net):
    mark_untrained(net, "the weights of the network are drawn at random")
    found = ask(target())
    assert found.probabilities is None
    assert found.no_probabilities == "the weights of the network are drawn at random"
    assert found.arrays
