"""Models of transformers and open_clip by every protocol, classifiers and towers: what is trained starts right."""

import warnings

import pytest
import torch
from small_models import OPEN_CLIP, TRANSFORMERS, save_open_clip, save_transformers

from transferscope.activations.capture import resolve_stages
from transferscope.errors import TransferscopeWarning
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.cutting.places import PROTOCOLS, depths_of
from transferscope.protocols.cutting.possible import possible

MODELS = [("transformers", name) for name in TRANSFORMERS] + [("open_clip", name) for name in OPEN_CLIP]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Return a network, loaded once."""
    folder, networks = tmp_path_factory.mktemp("models"), {}

    def loaded(loader, name):
        pytest.importorskip(loader)
        if (loader, name) not in networks:
            save = save_transformers if loader == "transformers" else save_open_clip
            model = str(save(name, folder / loader))
            networks[loader, name] = load_network(load_zoo([{"name": name, "loader": loader, "model": model}])[name])
        return networks[loader, name]

    return loaded


def images(network, n=3):
    return torch.randn(n, *network.transform.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("loader", "name"), MODELS)
def test_every_protocol_at_every_depth(loader, name, loaded):
    network = loaded(loader, name)
    stages = [stage.layer for stage in resolve_stages(network.module, "auto", images(network, 1), cuts_only=True)]
    found = possible(network, stages)
    assert {
        (protocol, depth): reason for protocol in found for depth, reason in found[protocol].items() if reason
    } == {}
    x, before = images(network), {key: value.clone() for key, value in network.module.state_dict().items()}
    for protocol in PROTOCOLS:
        depths = depths_of(protocol, len(stages))
        net = cut(network, depths[len(depths) // 2], protocol, 4, seed=1)
        with torch.no_grad():
            assert net(x).shape == (3, 4)
        net.train()
        net(x).square().sum().backward()
        trained = [parameter for parameter in net.rest.parameters() if parameter.grad is not None]
        assert trained
        assert all(parameter.grad is None for parameter in (net.prefix.parameters() if net.prefix else ()))
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


@pytest.mark.parametrize(
    ("loader", "name", "pooled"),
    [
        ("transformers", "dinov2", lambda net, x: net(x).last_hidden_state[:, 0]),
        ("transformers", "dinov2-registers", lambda net, x: net(x).last_hidden_state[:, 0]),
        ("transformers", "clip", lambda net, x: net(x).pooler_output),
        ("transformers", "siglip", lambda net, x: net(x).pooler_output),
        ("transformers", "swin-tower", lambda net, x: net(x).last_hidden_state.mean(1)),
        ("transformers", "vit-tower", lambda net, x: net(x).last_hidden_state.mean(1)),
        ("open_clip", "vit", lambda net, x: net(x)),
        ("open_clip", "coca", lambda net, x: net(x)[0]),
    ],
)
def test_a_tower_keeps_its_weights_and_gets_a_linear_layer_on_its_pooled_output(loader, name, pooled, loaded):
    network = loaded(loader, name)
    x = images(network)
    for depth in (0, 2):
        net = cut(network, depth, "defrost", 4)
        head = next(module.linear for path, module in net.rest.named_modules() if path.endswith("new_head"))
        with torch.no_grad():
            expected = pooled(network.module, x) @ head.weight.T + head.bias
            torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    # What is drawn anew is all but what is kept, by the library's own initialiser.
    kept, drawn = cut(network, 2, "finetune", 4, seed=7), cut(network, 0, "scratch", 4, seed=7)
    own, names = network.module.state_dict(), kept.rest.state_dict().keys() & network.module.state_dict().keys()
    same = {key for key in names if torch.equal(kept.rest.state_dict()[key], own[key])}
    matrices = {key for key in names if own[key].is_floating_point() and own[key].ndim > 1 and "_token" not in key}
    varied = {key for key in matrices if own[key].min() < own[key].max()}
    assert same & varied
    assert varied - same
    assert not {key for key in varied if torch.equal(drawn.rest.state_dict()[key], own[key])}


def test_the_stages_of_a_tower_are_called_as_before(loaded):
    network = loaded("transformers", "dinov2")
    net = cut(network, 2, "finetune", 4)
    assert net.layer == "encoder.layer.0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        names = net.stage_parameters()
    assert list(names)[:2] == ["embeddings", "encoder.layer.0"]
    assert "rest.encoder.layer.0.norm1.weight" in names["encoder.layer.0"]
    assert not [name for layer in names.values() for name in layer if "new_head" in name]
