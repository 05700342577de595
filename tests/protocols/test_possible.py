"""What a network can be adapted by: what is said to be possible is what `cut` does, and what is not, why."""

import pytest
import timm
import torch
from torch import nn

from transferscope.activations.capture import resolve_stages
from transferscope.data.images import Transform
from transferscope.errors import SourceError
from transferscope.networks.loading import Network, load_network
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.cutting.places import PROTOCOLS
from transferscope.protocols.cutting.possible import possible

TRANSFORM = Transform(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

FACTORY = """
import pathlib
import random

import torch
import torch.utils.checkpoint
from torch import nn

def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.middle, self.last = block(3, 4), block(4, 6), block(6, 8)
        self.unused = nn.Linear(3, 3)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 5)

    def features(self, x):
        return self.pool(self.last(self.middle(self.stem(x))))

    def forward(self, x):
        return self.head(self.features(x))

class NoGrad(Plain):
    def forward(self, x):
        with torch.no_grad():
            x = self.features(x)
        return self.head(x)

class Detached(Plain):
    def forward(self, x):
        return self.head(self.pool(self.last(self.middle(self.stem(x)).detach())))

class ShapeRead(Plain):
    def forward(self, x):
        return super().forward(x) + 0 * torch.zeros_like(self.unused.weight).sum()

class Headless(Plain):
    def forward(self, x):
        return self.last(self.middle(self.stem(x)))

class Siamese(Plain):
    def forward(self, x):
        x = self.last(self.middle(self.stem(x)))
        return torch.sigmoid(x), torch.tanh(x)

class Different(Plain):
    def __init__(self):
        super().__init__()
        built = pathlib.Path(__file__).with_suffix(".built")
        if built.exists():
            self.last[0] = nn.Conv2d(6, 8, 1)
        built.touch()

class Reentrant(Plain):
    def forward(self, x):
        x = self.middle(self.stem(x))
        return self.head(self.pool(torch.utils.checkpoint.checkpoint(self.last, x, use_reentrant=True)))

class ClassIndices(Plain):
    def forward(self, x):
        return super().forward(x).argmax(dim=1)

class Answer:
    def __init__(self, logits):
        self.logits = logits

class Object(Plain):
    def forward(self, x):
        return Answer(super().forward(x))

class Inference(Plain):
    def forward(self, x):
        with torch.inference_mode():
            x = self.stem(x)
        return self.head(self.pool(self.last(self.middle(x))))

class AllInference(Plain):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)

class NeverAlone(Plain):
    def forward(self, x):
        assert len(x) > 1
        return super().forward(x)

class Noisy(Plain):
    def forward(self, x):
        x = self.stem(x)
        return self.head(self.pool(self.last(self.middle(x + torch.randn_like(x)))))

class Coin(Plain):
    def forward(self, x):
        return super().forward(x.flip(2) if random.random() < 0.5 else x)

class ChangesImages(Plain):
    def forward(self, x):
        return super().forward(x.sub_(0.5).mul_(2))

class Spectral(Plain):
    def __init__(self):
        super().__init__()
        torch.nn.utils.spectral_norm(self.middle[0])
"""


@pytest.fixture
def network(tmp_path):
    def network(kind, layers=("stem", "middle", "last", "pool")):
        (tmp_path / f"{kind}.py").write_text(FACTORY + f"\nbuild = {kind}\n")
        entry = {
            "name": kind, "loader": "python", "factory": f"{tmp_path / kind}.py:build", "layers": list(layers),
            "transform": {"size": 16},
        }  # fmt: skip
        return load_network(load_zoo([entry])[kind], trust_code=True)

    return network


def tried(network):
    stages = resolve_stages(network.module, network.source.layers, network.transform.blank(), cuts_only=True)
    return possible(network, [stage.layer for stage in stages], trust_code=True)


def at(found, protocol):
    """Return the depths at which a protocol is possible."""
    return [depth for depth, reason in found[protocol].items() if not reason]


def as_cut_does(network, found):
    for protocol, reasons in found.items():
        for depth, reason in reasons.items():
            if reason:
                with pytest.raises(SourceError):
                    cut(network, depth, protocol, 3, trust_code=True)
            else:
                cut(network, depth, protocol, 3, trust_code=True)


def test_an_ordinary_network_takes_everything_everywhere(network):
    plain = network("Plain")
    before = {key: value.clone() for key, value in plain.module.state_dict().items()}
    found = tried(plain)
    assert list(found) == list(PROTOCOLS)
    assert {name: list(depths) for name, depths in found.items()} == {
        "truncate": [1, 2, 3, 4], "reinit": [1, 2, 3, 4], "finetune": [1, 2, 3, 4], "scratch": [0],
        "defrost": [0, 1, 2, 3, 4], "surgical": [4],
    }  # fmt: skip
    assert not any(reason for reasons in found.values() for reason in reasons.values())
    assert all(torch.equal(value, before[key]) for key, value in plain.module.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in plain.module.parameters())
    as_cut_does(plain, found)


def test_a_tower_without_gradients_can_be_cut_where_it_ends(network):
    tower = network("NoGrad")
    found = tried(tower)
    assert at(found, "truncate") == [1, 2, 3, 4]
    # Behind the last weights of the tower only the head is trained, and that has gradients.
    assert at(found, "reinit") == at(found, "defrost") == [3, 4]
    assert at(found, "finetune") == at(found, "scratch") == at(found, "surgical") == []
    assert found["reinit"][2] == (
        "no gradient reaches 'last.0.weight' and 3 more weights: no_grad or detach in a `forward`"
    )
    as_cut_does(tower, found)


def test_a_detached_stem_leaves_what_comes_after_it(network):
    found = tried(network("Detached"))
    assert at(found, "reinit") == [2, 3, 4]
    assert at(found, "finetune") == []
    assert found["finetune"][1].startswith("no gradient reaches 'stem.0.weight' and 7 more weights")


def test_weights_whose_shape_alone_is_read_need_no_gradient(network):
    assert at(tried(network("ShapeRead")), "finetune") == [1, 2, 3, 4]


def test_without_a_head_everything_is_trained_with_a_new_one(network):
    headless = network("Headless", ("stem", "middle", "last"))
    found = tried(headless)
    for protocol in PROTOCOLS:
        assert at(found, protocol) == list(found[protocol])
    as_cut_does(headless, found)


def test_of_outputs_side_by_side_none_can_be_given_a_head(network):
    siamese = network("Siamese", ("stem", "middle"))
    found = tried(siamese)
    assert at(found, "truncate") == [1, 2]
    for protocol in PROTOCOLS[1:]:
        assert at(found, protocol) == []
    assert "but it returns several tensors, of which none lies deepest: 0, 1; use" in found["finetune"][1]
    as_cut_does(siamese, found)


def test_an_architecture_that_is_built_otherwise_cannot_be_drawn_anew(network):
    found = tried(network("Different"))
    assert at(found, "scratch") == []
    assert "cannot be re-initialised" in found["reinit"][1]
    assert at(found, "defrost") == [0, 1, 2, 3, 4]
    # What differs is kept.
    assert at(found, "reinit") == [3, 4]


@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_behind_a_cut_a_reentrant_checkpoint_has_no_gradients(network):
    found = tried(network("Reentrant"))
    assert at(found, "finetune") == [1, 2, 3, 4]
    assert at(found, "reinit") == [1, 3, 4]
    assert found["reinit"][2].startswith("no gradient reaches 'last.0.weight'")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("ClassIndices", "a tensor of torch.int64 (class indices, say)"),
        ("Object", "Answer"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The output of Object does not follow")
def test_what_has_no_gradient_cannot_be_trained_by(network, kind, what):
    found, reason = tried(network(kind)), f"it returns {what}, not a tensor of numbers that have gradients"
    assert at(found, "truncate") == [1, 2, 3, 4]
    assert {found[protocol][depth] for protocol in PROTOCOLS[1:] for depth in found[protocol]} == {reason}
    as_cut_does(network(kind), found)


def test_inference_mode_inside_leaves_what_comes_after_it(network):
    found = tried(network("Inference"))
    assert at(found, "finetune") == []
    assert found["finetune"][1].startswith("its gradients cannot be computed (RuntimeError: Inference tensors")
    assert at(found, "reinit") == [1, 2, 3, 4]
    as_cut_does(network("Inference"), found)


def test_a_head_is_trained_on_what_is_made_in_inference_mode(network):
    net = cut(network("AllInference"), 4, "truncate", 3, trust_code=True)
    net(torch.randn(4, 3, 16, 16)).sum().backward()


@pytest.mark.parametrize("kind", ["NeverAlone", "Noisy", "Coin", "ChangesImages", "Spectral"])
def test_neither_chance_nor_what_is_done_to_the_input_keeps_a_network_from_being_cut(network, kind):
    odd = network(kind)
    found = tried(odd)
    as_cut_does(odd, found)
    assert at(found, "finetune") == [1, 2, 3, 4]
    assert kind == "NeverAlone" or at(found, "reinit") == [1, 2, 3, 4]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:torch.ao.quantization", "ignore:torch.quantize_per_tensor",
    "ignore:FLOPs are unknown",
)  # fmt: skip
def test_quantised_layers_cannot_be_trained():
    net = timm.create_model("test_vit", img_size=32, num_classes=10).eval()
    small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    entry = load_zoo([{"name": "small", "loader": "timm", "model": "test_vit", "transform": {"size": 32}}])["small"]
    found = possible(Network("small", small, TRANSFORM, entry), ["patch_embed", "blocks.0"])
    assert at(found, "truncate") == [1, 2]
    for protocol in PROTOCOLS[1:]:
        assert at(found, protocol) == []
    assert found["finetune"][1] == (
        "the weights of 'blocks.0.attn.qkv' and 24 more layers are kept in a form that cannot be trained, as those of "
        "quantised layers are"
    )
