"""Delivered networks: they do what the network that was adapted does, cut anywhere, and can be stored and exported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from transferscope.activations.capture import collect, resolve_stages
from transferscope.errors import InputError, SourceError
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.delivery.export import check_formats, export
from transferscope.protocols.delivery.network import Form, delivered, moved
from transferscope.protocols.delivery.temperature import fit_temperature
from transferscope.protocols.heads.modules import HeadScores

SIZES = {"test_resnet": 64, "test_vit": 160}


@pytest.fixture(scope="module", params=SIZES)
def network(request):
    size = SIZES[request.param]
    entry = {"name": "a", "loader": "timm", "model": request.param, "weights": "none",
             "transform": {"size": size, "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
    made = load_network(load_zoo([entry])["a"])
    stages = resolve_stages(made.module, "auto", made.transform.blank(), cuts_only=True)
    return made, [stage.layer for stage in stages]


def images(network, count=3):
    return torch.randn(count, *network.transform.shape, generator=torch.Generator().manual_seed(0))


def head(n_features, classes=3):
    rng = np.random.default_rng(0)
    return HeadScores(
        {
            "mean": rng.normal(size=n_features), "deviation": rng.uniform(1, 2, n_features),
            "weight": rng.normal(size=(classes, n_features)), "bias": rng.normal(size=classes),
        }
    )  # fmt: skip


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("protocol", ["reinit", "defrost", "finetune", "surgical", "scratch"])
def test_a_trained_network_is_put_together_again(network, protocol):
    source, stages = network
    depth = {"surgical": len(stages), "scratch": 0}.get(protocol, 3)
    trained = cut(source, depth, protocol, 3, seed=1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:  # as if it had been trained
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    whole = delivered(source, Form(), 3)
    before = whole(images(source))
    whole.take(trained.eval())
    assert not torch.allclose(whole(images(source)), before)
    torch.testing.assert_close(whole(images(source)), trained(images(source)).detach(), rtol=0, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in whole.parameters())


@pytest.fixture(scope="module")
def nested():
    """A network whose blocks without a skip end in the midst of a batch norm with an activation."""
    entry = {"name": "a", "loader": "timm", "model": "test_efficientnet", "weights": "none",
             "transform": {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3}}  # fmt: skip
    return load_network(load_zoo([entry])["a"])


def test_a_module_in_the_midst_of_which_the_cut_lies_keeps_its_averages(nested):
    places = len(resolve_stages(nested.module, "auto", nested.transform.blank(), cuts_only=True))
    shared = 0
    for depth in range(1, places):
        parts = moved(cut(nested, depth, "defrost", 3))
        prefix, rest = (part.net.state_dict() for part in parts.divided())
        shared += any(not torch.equal(prefix[key], rest[key]) for key in prefix.keys() & rest.keys())
        whole = delivered(nested, Form(), 3)
        whole.take(parts)
        torch.testing.assert_close(whole(images(nested)), parts(images(nested)).detach(), rtol=0, atol=1e-4)
    assert shared  # else this shows nothing


class Twice(nn.Module):
    """One layer before the cut and after it."""

    def __init__(self):
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.pool, self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(3, 5)

    def forward(self, x):
        return self.head(self.pool(self.stem(self.middle(self.stem(x)))))


def test_two_parts_that_share_a_layer_make_no_network(nested):
    twice = replace(nested, module=Twice().eval())
    whole = delivered(twice, Form(), 3)
    with pytest.raises(SourceError, match=r"Twice uses some weights both before and after 'middle'.*use finetune"):
        whole.take(moved(cut(twice, 2, "defrost", 3)))


def test_features_are_those_that_heads_are_fitted_to(network):
    source, stages = network
    expected = collect(source.module, [images(source)], stages)
    for layers in (stages[:1], [stages[3]], stages):
        body = delivered(source, Form(tuple(layers), {}), 3).body
        wanted = np.concatenate([expected[layer] for layer in layers], axis=1)
        np.testing.assert_allclose(body(images(source)), wanted, rtol=0, atol=1e-6)
        np.testing.assert_allclose(body(images(source)[:1]), wanted[:1], rtol=0, atol=1e-5)


def test_it_is_stored_and_loaded_without_what_comes_after_the_cut(network):
    source, stages = network
    made = delivered(source, Form((stages[2],), {}), 3)
    made.head = head(made.body(images(source)).shape[1])
    made.temperature.fill_(2.0)
    again = delivered(source, Form((stages[2],), shapes(made.head)), 3)
    assert not torch.equal(again(images(source)), made(images(source)))
    again.load_state_dict(made.arrays)
    assert torch.equal(again(images(source)), made(images(source)))
    assert sum(p.numel() for p in made.parameters()) < sum(p.numel() for p in source.module.parameters())
    torch.testing.assert_close(
        made(images(source)), (made.head(made.body(images(source))) / 2).float(), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(made.probabilities(images(source)), made(images(source)).softmax(1))


def test_a_layer_that_there_is_not(network):
    source, stages = network
    with pytest.raises(SourceError, match="runs through no layer 'gone'"):
        delivered(source, Form(("gone", stages[0]), {}), 3)


def test_what_is_no_tensor_cannot_be_stored(network):
    source, _ = network
    whole = delivered(source, Form(), 3)
    whole.register_module("packed", Packed())
    with pytest.raises(SourceError, match=r"'packed\._extra_state' is no tensor"):
        whole.arrays  # noqa: B018


class Packed(nn.Module):
    def get_extra_state(self):
        return object()


@pytest.mark.parametrize("name", ["torchscript", "onnx"])
def test_exports_of_all_forms_agree_with_the_network(network, name):
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    source, stages = network
    whole = delivered(source, Form(), 3)
    headed = delivered(source, Form(tuple(stages[:4]), {}), 3)
    headed.head = head(headed.body(images(source)).shape[1])
    for made in (whole, headed):
        assert len(export(made, name, images(source))) > 10_000


def test_what_cannot_be_exported_says_so(network):
    source, _ = network
    whole = delivered(source, Form(), 3)
    forward, calls = whole.forward, []

    def fails_when_exported(given):
        calls.append(len(given))
        if len(calls) > 2:
            raise RuntimeError("no way")
        return forward(given)

    whole.forward = fails_when_exported
    with pytest.raises(SourceError, match=r"cannot be exported to torchscript \(RuntimeError: no way"):
        export(whole, "torchscript", images(source))


def test_formats_are_checked():
    assert check_formats("torchscript") == ("torchscript",)
    assert check_formats(["torchscript", "torchscript"]) == ("torchscript",)
    with pytest.raises(InputError, match="`export` to be among onnx, torchscript, but got 'tflite'"):
        check_formats(["tflite"])


class TestTemperature:
    def loss(self, logits, labels, temperature):
        n_samples, n_classes = logits.shape
        wanted = np.full(logits.shape, 1 / (n_samples + n_classes))
        wanted[np.arange(n_samples), labels] = (n_samples + 1) / (n_samples + n_classes)
        return -np.mean(np.sum(wanted * log_softmax(logits / temperature, axis=1), axis=1))

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
    def test_it_undoes_a_scale_of_honest_logits(self, scale):
        rng = np.random.default_rng(0)
        honest = 2 * rng.normal(size=(20_000, 4))
        probabilities = np.exp(log_softmax(honest, axis=1))
        labels = (probabilities.cumsum(1) > rng.random((20_000, 1))).argmax(1)
        assert fit_temperature(honest * scale, labels) == pytest.approx(scale, rel=0.03)

    def test_no_other_temperature_fits_better(self):
        rng = np.random.default_rng(1)
        logits = 5 * rng.normal(size=(30, 3))
        labels = np.where(rng.random(30) < 0.3, rng.integers(0, 3, 30), logits.argmax(1))
        best = fit_temperature(logits, labels)
        losses = [self.loss(logits, labels, best * factor) for factor in np.geomspace(0.1, 10, 201)]
        assert self.loss(logits, labels, best) <= min(losses) + 1e-9

    def test_few_images_that_are_all_right_leave_doubt(self):
        logits, labels = np.eye(3) * 100, np.arange(3)
        temperature = fit_temperature(logits, labels)
        probability = np.exp(log_softmax(logits / temperature, axis=1))[0, 0]
        assert probability == pytest.approx(4 / 6, abs=1e-4)  # Laplace: (n + 1) / (n + k)

    @pytest.mark.parametrize("logits", [np.zeros((0, 3)), np.full((2, 3), np.nan), np.zeros(2)])
    def test_what_is_no_logits(self, logits):
        with pytest.raises(InputError, match="Expected `logits`"):
            fit_temperature(logits, np.zeros(len(logits), dtype=int))
