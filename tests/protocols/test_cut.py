"""Cutting networks: the two parts make the whole, each holds its own weights, and every protocol starts right."""

import copy
import pickle
import re
import sys
from collections import UserDict
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

import transferscope as ts
from transferscope.activations.capture import resolve_stages
from transferscope.activations.tracing import trace
from transferscope.data.images import Transform
from transferscope.errors import CaptureError, InputError, SourceError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet
from transferscope.networks.loading import Network, build_untrained, load_network
from transferscope.networks.zoo import Source
from transferscope.protocols.cutting.cut import cut, cuts
from transferscope.protocols.cutting.dividing import divide, join, prefix_keys, stopped

pytestmark = pytest.mark.bounds

FACTORY = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
tv = torchvision.models


def drawn(build, *args, seed=0, **kwargs):
    """A network in evaluation mode whose batch norms have seen something."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = build(*args, **kwargs)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    return net.eval()


def images(n, size, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def example():
    sys.path.insert(0, str(FACTORY.parent))
    try:
        from cifar_resnet import build
    finally:
        sys.path.remove(str(FACTORY.parent))
    return build(8)


NETWORKS = {
    "compact": (lambda: CompactResNet(3, width=4), 16),
    "example": (example, 16),
    "resnet18": (lambda: tv.resnet18(num_classes=5), 32),
    "mobilenet_v2": (lambda: tv.mobilenet_v2(num_classes=5), 32),
    "densenet121": (lambda: tv.densenet121(num_classes=5), 32),
    "googlenet": (lambda: tv.googlenet(num_classes=5, aux_logits=False, init_weights=False), 32),
    # Attention whose output projection is never called, but read by its parent.
    "vit": (lambda: tv.VisionTransformer(16, 8, 3, 2, 8, 16, num_classes=5), 16),
    "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=5), 32),
    "timm convnext": (lambda: timm.create_model("convnext_atto", num_classes=5), 32),
    "timm mobilenetv2": (lambda: timm.create_model("mobilenetv2_100", num_classes=5), 32),
    "timm swin": (
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2),
            num_classes=5,
        ),
        56,
    ),
    # Reads the number of images at the start of a stage and uses it at its end.
    "timm pvt": (lambda: timm.create_model("pvt_v2_b0", num_classes=5), 32),
}  # fmt: skip


def network(name):
    build, size = NETWORKS[name]
    return drawn(build), size


def some_stages(net, size):
    """About four of a small network, two of a large one."""
    stages = resolve_stages(net, "auto", torch.zeros(1, 3, size, size), cuts_only=True)
    return stages[:: len(stages) // 4 + 1] if total(net) < 1e6 else [stages[len(stages) // 3], stages[-1]]


def total(net):
    return sum(parameter.numel() for parameter in net.parameters())


def equal(x, y):
    return all(torch.equal(x[key], y[key]) for key in x) and x.keys() == y.keys()


# --- the two parts of a network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_prefix_and_suffix_make_the_network(name):
    net, size = network(name)
    x = images(3, size)
    with torch.inference_mode():
        expected = net(x)
    own = net.state_dict()
    for stage in some_stages(net, size):
        prefix, suffix = divide(net, stage.layer, x)
        with torch.inference_mode():
            activation = prefix(x)
            kept = activation.clone()
            assert torch.allclose(suffix(activation), expected, rtol=1e-5, atol=1e-6)
        assert activation.shape == (3, *stage.shape)
        assert torch.equal(activation, kept), "the activation is left as it is"
        parts = [{key.removeprefix("net."): value for key, value in p.state_dict().items()} for p in (prefix, suffix)]
        assert equal(parts[0] | parts[1], own), "keys and values are those of the network"
        # Of all these networks no weight is used on both sides, and none is unused.
        assert total(prefix) + total(suffix) == total(net)
        assert prefix.flops == stage.flops
        if name != "vit":  # of which the trace misses the output projections
            assert total(prefix) == stage.params


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer2.0"), ("timm vit", "blocks.1"), ("vit", "encoder.layers.encoder_layer_0")]
)
def test_gradients_of_the_suffix_are_those_of_the_network(name, layer):
    net, size = network(name)
    x, labels = images(4, size), torch.tensor([0, 1, 2, 1])
    prefix, suffix = divide(net, layer, x)
    with torch.no_grad():
        activation = prefix(x)
    nn.functional.cross_entropy(suffix(activation), labels).backward()
    nn.functional.cross_entropy(net(x), labels).backward()
    expected = dict(net.named_parameters())
    found = dict(suffix.net.named_parameters())
    assert found
    for key, parameter in found.items():
        assert torch.allclose(parameter.grad, expected[key].grad, rtol=1e-4, atol=1e-6), key


def test_in_training_the_suffix_learns_as_the_network_with_a_frozen_start_does():
    net, size = network("compact")
    x = images(4, size)
    prefix, suffix = divide(net, "blocks.1", x)
    suffix.train()
    found = suffix(prefix(x))
    net.train()
    for part in (net.stem, net.blocks[0], net.blocks[1]):
        part.eval()
    assert torch.allclose(found, net(x), rtol=1e-5, atol=1e-6)
    assert equal(suffix.net.blocks[2:].state_dict(), net.blocks[2:].state_dict()), "batch norm saw the same"
    prefix.train()
    assert prefix(x).requires_grad


def test_the_network_is_left_as_it_was():
    net, size = network("compact")
    net.train()
    net.blocks[2].eval()
    net.stem.requires_grad_(False)
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    prefix, suffix = divide(net, "blocks.3", images(2, size))
    with torch.no_grad():
        for parameter in (*prefix.parameters(), *suffix.parameters()):
            parameter.zero_()
    assert equal(net.state_dict(), state)
    assert [module.training for module in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [not n.startswith("stem") for n, _ in net.named_parameters()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in net.modules())
    assert [p.requires_grad for p in prefix.net.stem.parameters()] == [False] * 3
    assert all(p.requires_grad for p in prefix.net.blocks.parameters())


def test_each_part_is_rid_of_the_other_ones_weights():
    net, size = network("resnet18")
    prefix, suffix = divide(net, "layer3.0", images(1, size))
    held = [sum(t.numel() for t in (*part.parameters(), *part.buffers())) for part in (prefix, suffix)]
    whole = sum(t.numel() for t in (*net.parameters(), *net.buffers()))
    recorded = sum(t.numel() for t in suffix.recorded.buffers()) + suffix.image.numel()
    assert sum(held) - recorded == whole
    assert (suffix.net.conv1.weight.numel(), prefix.net.fc.weight.numel()) == (0, 0)
    assert not {"net.conv1.weight"} & suffix.state_dict().keys()


@pytest.mark.parametrize(
    "layer", ["blocks.3", "blocks.3.act2", "blocks.3.shortcut", "stem", "stem.2", "stem.0", "pool.0"]
)
def test_names_within_and_around_each_other_are_cut_alike(layer):
    net, size = network("compact")
    x = images(2, size)
    prefix, suffix = divide(net, layer, x)
    assert torch.equal(suffix(prefix(x)), net(x))


def test_an_operation_in_place_after_the_cut_spares_the_activation():
    net, size = network("mobilenet_v2")
    x = images(2, size)
    prefix, suffix = divide(net, "features.0.1", x)
    activation = prefix(x).detach().requires_grad_()
    assert (activation < 0).any()
    kept = activation.detach().clone()
    suffix(activation).sum().backward()
    assert torch.equal(activation, kept)
    assert activation.grad.abs().sum() > 0


def test_parts_are_copied_pickled_and_moved_as_any_network():
    net, size = network("timm vit")
    x = images(2, size)
    parts = divide(net, "blocks.1", x)
    for first, second in (copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))):
        assert torch.equal(second(first(x)), net(x))
        with torch.no_grad():
            first.net.cls_token.add_(1)
        assert not torch.equal(first(x), parts[0](x))
    # Nothing stays behind on another device: the meta device refuses to work with tensors of a real one.
    first, second = (part.to("meta") for part in parts)
    assert second(first(x.to("meta"))).shape == (2, 5)
    first, second = (part.double() for part in divide(net, "blocks.1", x))
    assert torch.allclose(second(first(x.double())).float(), net(x), atol=1e-4)


class Counting(nn.Module):
    """Reads the number of images early and uses it late."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        n = len(x)
        return self.head(self.stem(x).view(n, 4, -1).mean(dim=2))


def test_a_network_that_reads_the_number_of_images_early_is_divided():
    net = drawn(Counting)
    prefix, suffix = divide(net, "stem", images(1, 4))
    assert suffix.repeats
    x = images(5, 4)
    assert torch.equal(suffix(prefix(x)), net(x))


@pytest.mark.parametrize(("build", "layer"), [(NETWORKS["compact"][0], "blocks.2"), (Counting, "stem")])
def test_suffixes_are_stacked_and_run_together(build, layer):
    nets = [drawn(build, seed=seed) for seed in range(2)]
    x = images(3, 16)
    parts = [divide(net, layer, x) for net in nets]
    suffixes = [suffix for _, suffix in parts]
    params, buffers = torch.func.stack_module_state(suffixes)
    base = copy.deepcopy(suffixes[0]).to("meta")
    activations = torch.stack([prefix(x) for prefix, _ in parts]).detach()

    def loss(params, buffers, activation):
        return torch.func.functional_call(base, (params, buffers), (activation,)).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(params, buffers, activations)
    for i, suffix in enumerate(suffixes):
        suffix(activations[i]).square().sum().backward()
        for key, parameter in suffix.named_parameters():
            assert torch.allclose(gradients[key][i], parameter.grad, rtol=1e-3, atol=1e-4), key


class Keeping(nn.Module):
    """Keeps what it computed from its weights, with the graph, for the next evaluation (as LeViT does)."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.scale = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), nn.Parameter(torch.ones(4))
        self.kept = None

    def train(self, mode=True):
        if mode:
            self.kept = None
        return super().train(mode)

    def forward(self, x):
        self.kept = self.scale.exp() if self.kept is None else self.kept
        return self.head(self.stem(x).mean(dim=(2, 3)) * self.kept)


def test_a_network_that_keeps_graphs_is_divided():
    net = drawn(Keeping)
    x = images(2, 4)
    assert net(x).requires_grad
    prefix, suffix = divide(net, "stem", x)
    assert torch.equal(suffix(prefix(x)), net(x))
    assert not net.training


def test_normalised_weights_are_divided():
    x = images(2, 4)
    layers = (nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    net = drawn(nn.Sequential, torch.nn.utils.parametrizations.weight_norm(copy.deepcopy(layers[0])), *layers[1:])
    prefix, suffix = divide(net, "1", x)
    assert torch.allclose(suffix(prefix(x)), net(x))
    assert (total(prefix), total(suffix)) == (3 * 4 + 4 + 4, 64 * 2 + 2)
    net = drawn(nn.Sequential, torch.nn.utils.spectral_norm(layers[0]), *layers[1:])
    net(x)  # leaves a weight in it that holds a graph
    prefix, suffix = divide(net, "1", x)
    assert torch.allclose(suffix(prefix(x)), net(x), atol=1e-6)
    assert (total(prefix), total(suffix)) == (3 * 4 + 4, 64 * 2 + 2)


class Table(nn.Module):
    """Is never called: others read its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.randn(5, 4))


class Tokens(nn.Module):
    """Like a vision transformer: a class token and positions join before the blocks, another token after them."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 4))
        self.positions = nn.Parameter(torch.randn(1, 5, 4))
        self.unused = nn.Parameter(torch.randn(4))
        self.table = Table()
        self.register_buffer("scale", torch.tensor(2.0))
        self.blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
        self.late = nn.Parameter(torch.randn(1, 1, 4))
        self.side, self.head = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions + self.table.values
        x = self.blocks(x) * self.scale
        x = torch.cat([self.late.expand(len(x), -1, -1), x], dim=1).mean(dim=1)
        return self.head(x) + self.side(x) if self.training else self.head(x)


def test_parameters_of_the_network_itself_belong_where_they_matter():
    net = drawn(Tokens)
    x = images(2, 8)
    prefix, suffix = divide(net, "blocks.1", x)
    before = {"cls", "positions", "embed.weight", "embed.bias"}
    before |= {f"blocks.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    after = {"late", *(f"{layer}.{kind}" for layer in ("blocks.2", "side", "head") for kind in ("weight", "bias"))}
    assert {name for name, _ in prefix.net.named_parameters()} == before
    assert {name for name, _ in suffix.net.named_parameters()} == after
    assert set(prefix.net.state_dict()) == before | {"scale", "table.values"}
    assert prefix_keys(net, "blocks.1", x) == before | {"scale", "table.values"}
    assert torch.equal(suffix(prefix(x)), net(x))
    assert torch.equal(suffix.train()(prefix(x)), net.train()(x))
    other = drawn(Tokens, seed=1)
    unused = other.unused.clone()
    join(other, prefix, suffix)
    assert torch.equal(other.unused, unused)
    assert torch.equal(other.eval()(x), net.eval()(x))


class Functional(nn.Module):
    """Uses the tensors of a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.norm, self.stem, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        norm = self.norm
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return self.head(self.stem(x).mean(dim=(2, 3)))


def test_tensors_of_a_layer_that_is_never_called_are_kept():
    net = drawn(Functional)
    x = images(2, 4)
    prefix, suffix = divide(net, "stem", x)
    assert torch.equal(suffix(prefix(x)), net(x))
    assert set(prefix.net.state_dict()) == {key for key in net.state_dict() if not key.startswith("head")}
    assert {name for name, _ in suffix.net.named_parameters()} == {"head.weight", "head.bias"}


class Shared(nn.Module):
    """One layer before and after the cut, one activation function in two places, one block under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), self.relu)
        self.again = self.block
        self.middle = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.block(self.first(x))
        x = self.relu(self.middle(x))
        x = self.relu(self.first(x))
        return self.head(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("layer", ["first", "first:2", "relu", "relu:2", "relu:3", "block", "middle"])
def test_modules_with_several_calls_are_cut_at_each(layer):
    net = drawn(Shared)
    x = images(3, 4)
    prefix, suffix = divide(net, layer, x)
    assert torch.equal(suffix(prefix(x)), net(x))
    assert torch.equal(suffix(prefix(x)), net(x)), "a second pass counts its calls anew"


def test_a_weight_of_both_sides_is_in_both_parts():
    net = drawn(Shared)
    x = images(3, 4)
    prefix, suffix = divide(net, "middle", x)
    both = {name for name, _ in prefix.net.named_parameters()} & {name for name, _ in suffix.net.named_parameters()}
    assert both == {"first.weight", "first.bias"}
    assert {"block.0.weight", "again.0.weight"} <= prefix_keys(net, "middle", x)
    other = drawn(Shared, seed=1)
    join(other, prefix, suffix)
    assert equal(other.state_dict(), net.state_dict())
    with torch.no_grad():
        suffix.net.first.weight.add_(1)
    with pytest.raises(SourceError, match=r"'first\.weight' is used before and after the cut and differs"):
        join(other, prefix, suffix)


def test_parts_that_were_trained_are_joined():
    net, size = network("compact")
    x = images(2, size)
    prefix, suffix = divide(net, "blocks.2", x)
    with torch.no_grad():
        for parameter in (*prefix.parameters(), *suffix.parameters()):
            parameter.mul_(1.01)
    join(net, prefix, suffix)
    assert torch.allclose(net(x), suffix(prefix(x)), atol=1e-6)


class Structured(nn.Module):
    """Whose stem returns its tensor within a structure."""

    def __init__(self, wrap, unwrap):
        super().__init__()
        self.stem, self.head = nn.Sequential(nn.Conv2d(3, 4, 1), Wrap(wrap)), nn.Linear(4, 2)
        self.unwrap = unwrap

    def forward(self, x):
        return {"logits": self.head(self.unwrap(self.stem(x)).mean(dim=(2, 3)))}


class Wrap(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x)


@pytest.mark.parametrize("layer", ["stem", "stem.0"])
@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: (2 * x, x.shape[-1]), lambda y: y[0] * y[1]),
        (lambda x: {"sizes": (4, 4), "maps": [x + 1]}, lambda y: y["maps"][0]),
        (lambda x: UserDict(x=2 * x), lambda y: y["x"]),
    ],
)
def test_the_tensor_is_replaced_within_its_structure(layer, wrap, unwrap):
    net = drawn(Structured, wrap, unwrap)
    x = images(3, 4)
    prefix, suffix = divide(net, layer, x)
    assert prefix(x).shape == (3, 4, 4, 4)
    assert torch.equal(suffix(prefix(x)), net(x)["logits"])


class Sealed(tuple):
    def __new__(cls, one, other):
        return super().__new__(cls, (one, other))


def test_a_structure_of_its_own_kind_is_refused():
    net = drawn(Structured, lambda x: Sealed(2 * x, 3), lambda y: y[0])
    with pytest.raises(SourceError, match=r"Structured cannot be divided after 'stem'.*Sealed, cannot be put together"):
        divide(net, "stem", images(1, 4))


class Detour(nn.Module):
    """Carries a value of the image around the cut, through no operation of torch."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.stem(x).mean(dim=(2, 3))) + float(x.mean())


def test_a_hidden_detour_is_found_out():
    with pytest.raises(SourceError, match=r"Detour cannot be divided after 'stem'.*depends on more than that output"):
        divide(drawn(Detour), "stem", images(1, 4))


class Refusing(Counting):
    def forward(self, x):
        if not self.stem.weight.numel():
            raise RuntimeError("not like this")
        return super().forward(x)


def test_what_the_network_says_is_passed_on():
    with pytest.raises(SourceError, match=r"does not run on that output alone \(RuntimeError: not like this\)"):
        divide(drawn(Refusing), "stem", images(1, 4))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("blocks.3.conv9", r"CompactResNet runs through no layer 'blocks\.3\.conv9' \(did you mean '?blocks\.3\.conv"),
        ("blocks.3:2", r"runs through no layer 'blocks\.3:2'"),
        (
            "blocks.3.bn1",
            r"cannot be cut after 'blocks\.3\.bn1', since it lies inside a residual connection; the nearest layers "
            r"where it can be cut: 'blocks\.2' before it, 'blocks\.3\.act2' after it$",
        ),
        ("blocks.0.conv1", r"'stem' before it, 'blocks\.0\.act2' after it"),
    ],
)
def test_a_layer_that_is_no_cut_is_refused_by_name(layer, said):
    net, size = network("compact")
    for function in (divide, stopped, prefix_keys):
        with pytest.raises(CaptureError, match=said):
            function(net, layer, images(1, size))


class Detached(nn.Module):
    """Works as without it where gradients are switched off; NumPy is past what torch sees."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.randn(3, 1, 1))
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(64, 2)

    def forward(self, x):
        with torch.set_grad_enabled(self.how != "no_grad"):
            if self.how == "numpy at once":
                x = torch.from_numpy(x.detach().numpy().copy())
            x = self.stem(self.scale * x)
            x = {"numpy": lambda x: torch.from_numpy(x.detach().numpy().copy()), "detach": torch.detach}.get(
                self.how, lambda x: x
            )(x)
            return self.head(x.flatten(1))


@pytest.mark.parametrize("how", ["no_grad", "detach", "numpy"])
def test_a_network_through_which_no_gradient_flows_is_divided_as_any_other(how):
    net, x = drawn(Detached, how), images(2, 4)
    prefix, suffix = divide(net, "stem", x)
    with torch.no_grad():
        assert torch.equal(prefix(x), net.stem(net.scale * x))
        assert torch.equal(suffix(prefix(x)), net(x))
    assert {name for name, _ in prefix.net.named_parameters()} == {"scale", "stem.weight", "stem.bias"}
    assert {name for name, _ in suffix.net.named_parameters()} == {"head.weight", "head.bias"}


def test_a_network_that_shows_no_cut_is_only_stopped():
    net, x = drawn(Detached, "numpy at once"), images(2, 4)
    for function in (divide, prefix_keys):
        with pytest.raises(CaptureError, match=r"does not follow from its input.*only .* 'truncate' works"):
            function(net, "stem", x)
    prefix = stopped(net, "stem", x)
    assert torch.equal(prefix(x), net.stem(net.scale * x))


def test_it_works_in_inference_mode():
    net, size = network("compact")
    x = images(2, size)
    with torch.inference_mode():
        prefix, suffix = divide(net, "blocks.0", images(1, size))
    suffix(prefix(x)).sum().backward()
    assert prefix.net.stem[0].weight.grad is not None


# --- sources, cut for a target ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A source of the example's architecture with weights of its own, and a head of ten classes."""
    file = tmp_path_factory.mktemp("source") / "weights.safetensors"
    safetensors.torch.save_file(drawn(example, seed=7).state_dict(), file)
    return Source(
        name="small", loader="python", factory=f"{FACTORY}:build", checkpoint=file, kwargs={"depth": 8},
        transform={"size": 16},
    )  # fmt: skip


@pytest.fixture(scope="module")
def loaded(source):
    return load_network(source, trust_code=True)


STAGES = ["relu", "layer1.0", "layer2.0", "layer3.0", "flatten"]
X = images(4, 16)


def made(source, depth, protocol, classes=6, **options):
    return cut(source, depth, protocol, classes, trust_code=True, **options)


def sizes(net):
    """What is kept by each cut."""
    return resolve_stages(net, "auto", X, cuts_only=True)


def weights(net):
    """By the network's own keys."""
    return {re.sub(r"^(prefix\.net|rest\.net|rest)\.", "", key): value for key, value in net.state_dict().items()}


def test_cuts_are_the_stages_by_depth(loaded):
    found = cuts(loaded.module, "auto", X)
    assert [(place.depth, len(found), place.layer) for place in found] == [
        (i, 5, layer) for i, layer in enumerate(STAGES, 1)
    ]
    assert sizes(loaded.module)[0].params == 3 * 16 * 9 + 32
    with pytest.warns(TransferscopeWarning, match=r"layer1\.0\.bn1"):
        assert [place.layer for place in cuts(loaded.module, ["layer1.0.bn1", "layer2.0"], X)] == ["layer2.0"]


@pytest.mark.parametrize(
    ("protocol", "depth"),
    [("reinit", 3), ("reinit", 5), ("finetune", 3), ("scratch", 0), ("defrost", 0), ("defrost", 3), ("surgical", 5)],
)
def test_every_protocol_starts_from_the_right_weights(source, loaded, protocol, depth):
    net = made(loaded, depth, protocol, seed=3)
    old = loaded.module.state_dict()
    fresh = build_untrained(source, seed=3, trust_code=True).state_dict()
    found = weights(net)
    assert found.keys() == old.keys()
    assert found["linear.weight"].shape == (6, 64)
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        head = nn.Linear(64, 6)
    kept = {0: (), 3: ("conv1", "bn1", "layer1", "layer2"), 5: ("conv1", "bn1", "layer")}[depth]
    for key, tensor in found.items():
        from_source = protocol in ("defrost", "surgical") or key.startswith(kept)
        expected = head.state_dict()[key[7:]] if key.startswith("linear") else (old if from_source else fresh)[key]
        assert torch.equal(tensor, expected), key
    assert (net.protocol, net.depth, net.layer) == (protocol, depth, STAGES[depth - 1] if depth else "")
    frozen = {key for key, parameter in net.named_parameters() if not parameter.requires_grad}
    parts = net.divided()
    if protocol in ("reinit", "defrost") and depth:
        assert parts == (net.prefix, net.rest)
        assert frozen == {key for key, _ in net.named_parameters() if key.startswith("prefix.")} != set()
        assert {re.sub(r"^prefix\.net\.", "", key) for key in frozen} == {
            key for key, _ in loaded.module.named_parameters() if key.startswith(kept)
        }
    else:
        assert parts == (None, net)
        assert not frozen
    assert net.transform is loaded.transform
    assert not net.training


def test_the_source_is_left_as_it_was(source, loaded):
    state, modes = copy.deepcopy(loaded.module.state_dict()), [m.training for m in loaded.module.modules()]
    random = torch.random.get_rng_state()
    for protocol, depth in [("truncate", 2), ("reinit", 3), ("scratch", 0), ("surgical", 5)]:
        net = made(loaded, depth, protocol)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
    assert equal(loaded.module.state_dict(), state)
    assert [m.training for m in loaded.module.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), random)
    assert equal(made(source, 2, "reinit").state_dict(), made(loaded, 2, "reinit").state_dict())


def test_the_seed_decides_what_is_drawn(loaded):
    for protocol, depth in [("truncate", 2), ("reinit", 3), ("scratch", 0)]:
        one, same, other = (made(loaded, depth, protocol, seed=seed).state_dict() for seed in (1, 1, 2))
        assert equal(one, same)
        assert not equal(one, other)


def test_a_truncated_network_is_the_prefix_its_mean_and_a_linear_layer(loaded):
    net = made(loaded, 3, "truncate")
    source = loaded.module
    with torch.no_grad():
        maps = source.layer2(source.layer1(source.relu(source.bn1(source.conv1(X)))))
        expected = maps.mean(dim=(2, 3)) @ net.rest.linear.weight.T + net.rest.linear.bias
        assert torch.allclose(net(X), expected, atol=1e-6)
    assert net.rest.linear.weight.shape == (6, 32)
    assert net.divided() == (net.prefix, net.rest)
    assert net.params == sizes(source)[2].params + 32 * 6 + 6
    assert all(not parameter.requires_grad for parameter in net.prefix.parameters())


def test_a_convolution_as_head_is_replaced_and_a_network_without_a_head_gets_one_on_what_it_puts_out():
    module = drawn(tv.squeezenet1_1, num_classes=5)
    entry = Source(name="squeezed", loader="torchvision", model="squeezenet1_1", transform={"size": 64})
    network = Network("squeezed", module, load_transform(64), entry)
    assert cut(network, 2, classes=3)(images(2, 64)).shape == (2, 3)
    assert cut(network, 2, "defrost", 3)(images(2, 64)).shape == (2, 3)
    bare = Network("squeezed", module.features, load_transform(64), entry)
    assert cut(bare, 2, classes=3)(images(2, 64)).shape == (2, 3)
    x = images(2, 64)
    maps = module.features(x)
    for depth in (0, 2):
        net = cut(bare, depth, "defrost", 3)
        (weight,) = (value for value in net.rest.state_dict().values() if value.shape == (3, maps.shape[1]))
        bias = net.rest.state_dict()["net.new_head.linear.bias" if depth else "new_head.linear.bias"]
        torch.testing.assert_close(net(x), maps.mean((2, 3)) @ weight.T + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "resnetv2_18"])
def test_heads_that_are_averaged_and_those_that_are_convolutions_are_replaced(name):
    options = {"img_size": 64} if name.startswith("deit") else {}
    module = drawn(timm.create_model, name, num_classes=5, **options)
    network = Network("two", module, load_transform(64), Source(name="two", loader="timm", model=name))
    net = cut(network, 3, "defrost", 4)
    assert net(images(2, 64)).shape == (2, 4)
    net.train()
    net(images(2, 64)).sum().backward()
    assert any(parameter.grad is not None and parameter.shape[0] == 4 for parameter in net.rest.parameters())


def load_transform(size):
    return Transform(size=size, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize(("protocol", "depth"), [("truncate", 3), ("reinit", 3), ("defrost", 2)])
def test_training_leaves_the_frozen_part_alone(loaded, protocol, depth):
    net = made(loaded, depth, protocol).train()
    before = copy.deepcopy(net.state_dict())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        nn.functional.cross_entropy(net(X), torch.tensor([0, 1, 2, 3])).backward()
        optimiser.step()
        optimiser.zero_grad()
    after = net.state_dict()
    for key in before:
        assert torch.equal(before[key], after[key]) == key.startswith("prefix."), key
    assert net.rest.training
    assert not any(module.training for module in net.prefix.modules())


def test_training_the_rest_trains_the_network(loaded):
    net = made(loaded, 3, "reinit")
    prefix, rest = net.divided()
    logits = net(X)
    activation = prefix(X)
    assert torch.equal(rest(activation), logits)
    assert not activation.requires_grad
    rest.train()
    optimiser = torch.optim.SGD(rest.parameters(), lr=0.01)
    nn.functional.cross_entropy(rest(activation), torch.tensor([0, 1, 2, 3])).backward()
    optimiser.step()
    rest.eval()
    assert not torch.equal(net(X), logits)
    assert torch.equal(net(X), rest(activation))


class Auxiliary(nn.Module):
    """Gives more than its logits in training, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x).mean(dim=(2, 3))
        return (self.head(x), self.side(x)) if self.training else self.head(x)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_network_with_further_outputs_in_training_gives_its_logits(depth):
    entry = Source(name="more", loader="timm", model="resnet18", layers=["stem"])
    net = cut(Network("more", drawn(Auxiliary), load_transform(4), entry), depth, "defrost", 3).train()
    assert net(images(2, 4)).shape == (2, 3)


def test_stage_parameters_are_all_but_the_head(loaded):
    net = made(loaded, 5, "surgical")
    groups = net.stage_parameters()
    assert list(groups) == STAGES
    assert groups["relu"] == ["rest.conv1.weight", "rest.bn1.weight", "rest.bn1.bias"]
    assert all(name.startswith("rest.layer2.0.") for name in groups["layer2.0"])
    assert groups["flatten"] == []
    listed = [name for names in groups.values() for name in names]
    assert {*listed, "rest.linear.weight", "rest.linear.bias"} == {name for name, _ in net.named_parameters()}
    assert len(set(listed)) == len(listed)
    with pytest.raises(InputError, match="'reinit' freezes a part"):
        made(loaded, 2, "reinit").stage_parameters()


@pytest.mark.parametrize(("protocol", "depth"), [("truncate", 3), ("reinit", 2), ("finetune", 4)])
def test_weights_are_saved_and_read_again(loaded, tmp_path, protocol, depth):
    net = made(loaded, depth, protocol, seed=1)
    file = tmp_path / "net.safetensors"
    net.save(file)
    other = made(loaded, depth, protocol, seed=2)
    assert not torch.equal(other(X), net(X))
    other.load_state_dict(safetensors.torch.load_file(file))
    assert torch.equal(other(X), net(X))
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.safetensors"]
    with pytest.raises(InputError, match=r"cannot be written to .*nowhere/net\.safetensors: No such file"):
        net.save(str(tmp_path / "nowhere" / "net.safetensors"))


def test_a_shared_weight_is_saved_under_both_names(tmp_path):
    module = drawn(Shared)
    entry = Source(name="shared", loader="timm", model="resnet18", layers=["middle"], transform={"size": 4})
    net = cut(Network("shared", module, load_transform(4), entry), 1, classes=2)
    net.save(tmp_path / "net.safetensors")
    saved = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert equal(saved, net.state_dict())
    assert {"prefix.net.block.0.weight", "prefix.net.again.0.weight"} <= saved.keys()


def test_a_cut_network_is_copied_and_pickled():
    entry = Source(name="ours", loader="timm", model="resnet18")
    network = Network("ours", drawn(CompactResNet, 3), load_transform(16), entry)
    for protocol in ("truncate", "defrost"):
        net = cut(network, 2, protocol, 4)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(other(X), net(X))
            assert (other.layer, other.depth, other.transform) == (net.layer, net.depth, net.transform)


def test_costs_of_a_network(loaded):
    net = made(loaded, 2, "truncate")
    stage = sizes(loaded.module)[1]
    assert net.flops == stage.flops + 2 * 16 * 6
    whole = made(loaded, 3, "reinit", classes=10)
    assert whole.params == total(loaded.module)
    assert whole.flops == trace(loaded.module, X)[-1].flops


@pytest.mark.parametrize(
    ("depth", "protocol", "classes", "said"),
    [
        (2, "freeze", 6, r"`protocol` to be one of truncate, reinit, .*'freeze'"),
        (2, "truncate", None, r"`classes` to be the number of classes .or other outputs., at least 1, but got None"),
        (2, "truncate", 0, r"at least 1, but got 0"),
        (2, "truncate", 2.0, r"at least 1, but got 2\.0"),
        (
            0,
            "truncate",
            6,
            r"'small'.*`depth` to be from 1 to 5 for the protocol 'truncate', but got 0; the stages are",
        ),
        (6, "reinit", 6, r"but got 6; the stages are 1 relu, 2 layer1\.0, 3 layer2\.0, 4 layer3\.0, 5 flatten$"),
        (-1, "defrost", 6, r"from 0 to 5 .* got -1"),
        (2.0, "reinit", 6, r"got 2\.0"),
        ("relu", "reinit", 6, r"got 'relu'"),
        (1, "scratch", 6, r"`depth` to be 0 for the protocol 'scratch', but got 1"),
        (4, "surgical", 6, r"`depth` to be 5 for the protocol 'surgical', but got 4"),
    ],
)
def test_bad_input_is_named(loaded, depth, protocol, classes, said):
    with pytest.raises(InputError, match=said):
        cut(loaded, depth, protocol, classes, trust_code=True)


def test_code_is_only_run_when_trusted(source, loaded):
    with pytest.raises(InputError, match="trust"):
        cut(source, 2, classes=3)
    with pytest.raises(InputError, match="trust"):
        cut(loaded, 2, "reinit", 3)


def test_a_cut_behind_the_classifier_leaves_nothing_to_train(loaded):
    entry = loaded.source.model_copy(update={"layers": ("layer1.0", "linear")})
    network = Network("small", loaded.module, loaded.transform, entry)
    assert made(network, 2, "truncate").rest.linear.in_features == 10
    with pytest.raises(SourceError, match=r"classifier 'linear' belongs to what is kept up to 'linear'"):
        made(network, 2, "reinit")
    assert weights(made(network, 2, "surgical"))["linear.weight"].shape == (6, 64)


def test_an_architecture_that_changes_with_its_weights_cannot_be_drawn_anew(loaded):
    entry = loaded.source.model_copy(update={"kwargs": {"depth": 14}})
    network = Network("small", example(), loaded.transform, entry)
    assert made(network, 2, "defrost").depth == 2
    network.module.layer3[0].extra = nn.Linear(2, 2)
    with pytest.raises(SourceError, match=r"'small': .*cannot be re-initialised"):
        made(network, 2, "reinit")


def test_it_is_public():
    assert ts.cut is cut
