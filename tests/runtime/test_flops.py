"""FLOPs against figures worked out by hand from what the architectures are, and figures that are unknown."""

import math
from contextlib import nullcontext

import pytest
import torch
from timm.models import create_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import flop_registry, register_flop_formula
from torchvision.ops import deform_conv2d, nms, roi_align

from transferscope.activations.tracing import trace
from transferscope.errors import TransferscopeWarning
from transferscope.runtime.flops import FlopCounter, count_flops

pytestmark = pytest.mark.bounds

ATEN = torch.ops.aten


# --- by hand: multiply-adds, of which each is two operations ----------------------------------------------------------


def attention_by_hand(queries, keys, width):
    """Q·Kᵀ and the weights times V, over all heads together."""
    return 2 * queries * keys * width


def block_by_hand(tokens, width, hidden, window=None):
    """Queries, keys, values and what comes out; attention (each token to its window); the two layers behind it."""
    return 4 * tokens * width**2 + attention_by_hand(tokens, window or tokens, width) + 2 * tokens * width * hidden


def vit_by_hand(size, patch, width, depth, classes, *, ratio=4, extra=1, heads=1):
    patches = (size // patch) ** 2
    embedding = patches * 3 * patch**2 * width
    return embedding + depth * block_by_hand(patches + extra, width, ratio * width) + heads * width * classes


def in_inference(net, *args, **kwargs):
    with torch.inference_mode():
        return count_flops(lambda: net(*args, **kwargs))


def without_gradients(net, *args, **kwargs):
    with torch.no_grad():
        return count_flops(lambda: net(*args, **kwargs))


def of_a_step(net, *args):
    def step():
        output = net(*args)
        total = sum(each.sum() for each in output) if isinstance(output, tuple) else output.sum()
        total.backward()

    return count_flops(step)


def unknown(name, function, *args, count=in_inference):
    with pytest.warns(TransferscopeWarning, match=f"FLOPs are unknown: how many {name} takes") as warned:
        assert math.isnan(count(function, *args))
    return len(warned) == 1


# --- networks ---------------------------------------------------------------------------------------------------------


def tiny_vit():
    return create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=10)


def tiny_deit():
    return create_model("deit_tiny_distilled_patch16_224", img_size=48, depth=2, num_classes=7)


def clip_tower():
    """As timm makes the image towers of CLIP: a norm before the blocks, no bias of the patches, a projection."""
    return VisionTransformer(
        img_size=64, patch_size=32, embed_dim=32, depth=3, num_heads=2, pre_norm=True, num_classes=12,
        norm_layer=nn.LayerNorm,
    )  # fmt: skip


NETWORKS = [
    # (network, image size, multiply-adds, of which those of the patches, whose input needs no gradient)
    (tiny_vit, 64, vit_by_hand(64, 16, 192, 2, 10), 16 * 768 * 192),
    (tiny_deit, 48, vit_by_hand(48, 16, 192, 2, 7, extra=2, heads=2), 9 * 768 * 192),
    (clip_tower, 64, vit_by_hand(64, 32, 32, 3, 12), 4 * 3072 * 32),
]


@pytest.mark.parametrize(("make", "size", "by_hand", "patches"), NETWORKS, ids=["vit", "deit", "clip"])
def test_flops_of_transformers_of_images(make, size, by_hand, patches):
    net, images = make(), torch.randn(2, 3, size, size)
    assert in_inference(net.eval(), images) == 2 * 2 * by_hand
    assert without_gradients(net, images) == 2 * 2 * by_hand
    net.train()
    assert count_flops(net, images) == 2 * 2 * by_hand
    # Two gradients for each product, and the patches none for the images.
    assert of_a_step(net, images) == 2 * 2 * (3 * by_hand - patches)


def test_dropout_of_the_weights_changes_no_figure():
    net = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=3, attn_drop_rate=0.3, drop_rate=0.1
    )
    images, by_hand = torch.randn(2, 3, 32, 32), vit_by_hand(32, 16, 16, 2, 3)
    net.train()
    assert count_flops(net, images) == 2 * 2 * by_hand
    assert of_a_step(net, images) == 2 * 2 * (3 * by_hand - 4 * 768 * 16)
    assert in_inference(net.eval(), images) == 2 * 2 * by_hand


def test_flops_of_swin_stage_by_stage():
    size, patch, width, window, depths, classes = 64, 4, 16, 4, (2, 2), 5
    net = SwinTransformer(
        img_size=size, patch_size=patch, embed_dim=width, depths=depths, num_heads=(2, 4), window_size=window,
        num_classes=classes,
    ).eval()  # fmt: skip
    tokens = (size // patch) ** 2
    first = tokens * 3 * patch**2 * width + depths[0] * block_by_hand(tokens, width, 4 * width, window**2)
    # Four neighbours become one token, twice as wide.
    merging = tokens // 4 * 4 * width * 2 * width
    second = merging + depths[1] * block_by_hand(tokens // 4, 2 * width, 8 * width, window**2)
    images = torch.randn(3, 3, size, size)
    assert in_inference(net, images) == 2 * 3 * (first + second + 2 * width * classes)
    flops = {call.layer: call.flops for call in trace(net, images)}
    assert (flops["layers.0"], flops["layers.1"]) == (2 * first, 2 * (first + second))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, nullcontext])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_flops_of_multihead_attention(context, need_weights, training):
    width, queries, keys = 16, 5, 7
    net = nn.MultiheadAttention(width, 4, dropout=0.2, batch_first=True).train(training)
    x, memory = torch.randn(3, queries, width), torch.randn(3, keys, width)
    alone = 4 * queries * width**2 + attention_by_hand(queries, queries, width)
    across = 2 * (queries + keys) * width**2 + attention_by_hand(queries, keys, width)
    with context():
        assert count_flops(lambda: net(x, x, x, need_weights=need_weights)) == 2 * 3 * alone
        assert count_flops(lambda: net(x, memory, memory, need_weights=need_weights)) == 2 * 3 * across
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("training", [False, True])
def test_flops_of_an_encoder_layer(training):
    tokens, width, hidden = 6, 16, 24
    net = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).train(training)
    x, by_hand = torch.randn(3, tokens, width), block_by_hand(tokens, width, hidden)
    assert count_flops(net, x) == 2 * 3 * by_hand
    assert in_inference(net, x) == without_gradients(net, x) == 2 * 3 * by_hand
    assert of_a_step(net, x.requires_grad_()) == 2 * 3 * by_hand * 3


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_padding_that_the_fused_encoder_leaves_out_is_not_counted():
    width, hidden, lengths = 16, 24, (6, 2, 3)
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval()
    x, padding = torch.randn(3, 6, width), torch.arange(6) >= torch.tensor(lengths)[:, None]
    fused = 2 * sum(block_by_hand(length, width, hidden) for length in lengths)
    assert in_inference(net, x, src_key_padding_mask=padding) == 2 * fused
    assert without_gradients(net, x, src_key_padding_mask=padding) == 2 * fused
    padded = 2 * 3 * block_by_hand(6, width, hidden)
    assert count_flops(lambda: net(x, src_key_padding_mask=padding)) == 2 * padded


# --- kernels of attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_same_with_every_kernel_forward_and_backward(backend, causal):
    q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (5, 7, 7))
    by_hand = 2 * 2 * 3 * attention_by_hand(5, 7, 8)

    def attend():
        return scaled_dot_product_attention(q, k, v, is_causal=causal)

    with sdpa_kernel(backend):
        assert in_inference(attend) == without_gradients(attend) == count_flops(attend) == by_hand
        assert count_flops(lambda: attend().sum().backward()) == 3 * by_hand


def test_values_of_another_width_grouped_heads_and_broadcast_batches():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 6)
    assert in_inference(scaled_dot_product_attention, q, k, v) == 2 * 2 * 4 * 5 * 7 * (8 + 6)
    assert without_gradients(scaled_dot_product_attention, q, k, v) == 2 * 2 * 4 * 5 * 7 * (8 + 6)
    grouped = torch.randn(2, 2, 7, 8)
    by_hand = 2 * 2 * 4 * attention_by_hand(5, 7, 8)
    assert in_inference(scaled_dot_product_attention, q, grouped, grouped, enable_gqa=True) == by_hand
    assert without_gradients(scaled_dot_product_attention, q, grouped, grouped, enable_gqa=True) == by_hand
    assert in_inference(scaled_dot_product_attention, q[:1], k, k) == by_hand


def on_no_device(*shape):
    return torch.empty(shape, device="meta", dtype=torch.float16)


def counted_on_no_device(kernel, **given):
    """FLOPs of a kernel that a CPU lacks, from shapes alone; versions of torch differ in what else it gets."""
    arguments = {argument.name: given[argument.name] for argument in kernel._schema.arguments if argument.name in given}
    try:
        kernel(**arguments)
    except NotImplementedError:
        pytest.skip("this torch does not run the kernel on shapes alone")
    return count_flops(lambda: kernel(**arguments))


KERNELS = [
    f"_scaled_dot_product_{kind}"
    for kind in ("flash_attention", "efficient_attention", "cudnn_attention", "fused_attention_overrideable")
]


@pytest.mark.parametrize("name", [name for name in KERNELS if hasattr(ATEN, name)])
def test_attention_of_a_gpu_counts_as_that_of_a_cpu(name):
    q, k = on_no_device(2, 3, 5, 8), on_no_device(2, 3, 7, 8)
    more = {"attn_bias": None, "compute_log_sumexp": True}
    flops = counted_on_no_device(getattr(ATEN, name).default, query=q, key=k, value=k, **more)
    assert flops == 2 * 2 * 3 * attention_by_hand(5, 7, 8)


@pytest.mark.parametrize("name", [f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient")])
def test_backward_of_attention_of_a_gpu_is_twice_forward(name):
    q, k, nothing = on_no_device(2, 3, 5, 8), on_no_device(2, 3, 7, 8), torch.empty((), device="meta")
    flops = counted_on_no_device(
        getattr(ATEN, f"{name}_backward").default,
        grad_out=q, grad_out_=q, query=q, key=k, value=k, out=q, logsumexp=on_no_device(2, 3, 5), attn_bias=None,
        cum_seq_q=None, cum_seq_k=None, max_q=5, max_k=7, dropout_p=0.0, is_causal=False,
        grad_input_mask=[True, True, True, False], philox_seed=nothing, philox_offset=nothing,
    )  # fmt: skip
    assert flops == 2 * 2 * 2 * 3 * attention_by_hand(5, 7, 8)


def test_columns_that_only_fill_heads_up_are_not_counted():
    kernel, filled = ATEN._scaled_dot_product_flash_attention.default, on_no_device(2, 3, 5, 16)
    assert count_flops(lambda: kernel(filled, filled, filled, scale=12**-0.5)) == 2 * 2 * 3 * 2 * 25 * 12
    assert count_flops(lambda: kernel(filled, filled, filled, scale=16**-0.5)) == 2 * 2 * 3 * 2 * 25 * 16
    assert count_flops(lambda: kernel(filled, filled, filled, scale=0.3)) == 2 * 2 * 3 * 2 * 25 * 16


@pytest.mark.parametrize("kernel", ["flash", "efficient"])
def test_sequences_laid_end_to_end_count_by_their_lengths(kernel):
    width, heads, lengths = 8, 2, ((5, 7), (3, 2))
    lead = (1,) if kernel == "efficient" else ()
    q, k = (on_no_device(*lead, sum(each), heads, width) for each in zip(*lengths, strict=True))
    starts = [torch.tensor([0, *each]).cumsum(0).int() for each in zip(*lengths, strict=True)]
    rest = (*starts, 5, 7, 0.0, False, False) if kernel == "flash" else (None, *starts, 5, 7, 0.0, 0)
    by_hand = 2 * heads * sum(attention_by_hand(*each, width) for each in lengths)
    operator = getattr(ATEN, f"_{kernel}_attention_forward").default
    assert count_flops(operator, q, k, k, *rest) == by_hand
    # Where the lengths are not known, the figure is not either, rather than that of one sequence.
    rest = [each.to("meta") if isinstance(each, torch.Tensor) else each for each in rest]
    assert unknown(f"aten::_{kernel}_attention_forward", operator, q, k, k, *rest, count=count_flops)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_count_by_their_lengths(layout):
    lengths, width, heads = (5, 3), 8, 2
    linear = nn.Linear(width, 6)

    def nested(*shape, **options):
        parts = [torch.randn(length, *shape) for length in lengths]
        return torch.nested.nested_tensor(parts, layout=layout, **options)

    x = nested(width, requires_grad=True)
    by_hand = 2 * sum(lengths) * width * 6
    assert without_gradients(linear, x) == count_flops(linear, x) == by_hand
    assert count_flops(lambda: linear(x).to_padded_tensor(0.0).sum().backward()) == 3 * by_hand
    q = nested(heads, width).transpose(1, 2)
    q = q.contiguous() if layout == torch.strided else q
    by_hand = 2 * heads * sum(attention_by_hand(length, length, width) for length in lengths)
    assert without_gradients(scaled_dot_product_attention, q, q, q) == by_hand


# --- other layers -----------------------------------------------------------------------------------------------------


LAYERS = [
    # (layer, input shape, multiply-adds of the forward pass)
    (nn.Linear(7, 11), (5, 7), 5 * 7 * 11),
    (nn.Conv2d(6, 8, 3, padding=1), (2, 6, 9, 9), 2 * 8 * 81 * 6 * 9),
    (nn.Conv2d(6, 8, 3, stride=2), (2, 6, 9, 9), 2 * 8 * 16 * 6 * 9),
    (nn.Conv2d(6, 12, (3, 5), padding=(1, 2), groups=3), (2, 6, 9, 9), 2 * 12 * 81 * 2 * 15),
    (nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 9, 9), 2 * 8 * 81 * 9),
    (nn.ConvTranspose2d(6, 8, 2, stride=2, groups=2), (2, 6, 5, 5), 2 * 6 * 25 * 4 * 4),
]


@pytest.mark.parametrize(("layer", "shape", "multiply_adds"), LAYERS, ids=lambda value: str(value)[:40])
def test_flops_of_known_layers_backward_costs_twice_forward(layer, shape, multiply_adds):
    x = torch.randn(shape)
    assert in_inference(layer, x) == 2 * multiply_adds
    # The gradient of the weights, and that of the input where it is wanted, take as many operations each.
    assert of_a_step(layer, x) == 2 * multiply_adds * 2
    assert of_a_step(layer, x.requires_grad_()) == 2 * multiply_adds * 3


def test_a_function_that_fails_leaves_torch_as_it_was():
    with pytest.raises(RuntimeError, match="shapes"):
        in_inference(nn.Linear(3, 2), torch.randn(4, 5))
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    counter = FlopCounter()
    with pytest.raises(RuntimeError, match="shapes"), counter:
        layer(layer(x))  # the second one fails
    layer(x)  # which nobody counts
    assert counter.total == 2 * 4 * 3 * 2
    assert count_flops(lambda: None) == 0
    assert [count_flops(layer, x) for _ in range(2)] == [2 * 4 * 3 * 2] * 2


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_flops_of_recurrent_layers(kind, gates):
    width, hidden, steps = 8, 6, 5
    net = kind(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(3, steps, width, requires_grad=True)
    by_hand = 2 * 3 * steps * 2 * gates * hidden * ((width + hidden) + (2 * hidden + hidden))
    assert in_inference(net, x) == without_gradients(net, x) == count_flops(net, x) == by_hand
    # The gradient of the first state, which nobody asks for, is one that only a fused layer computes.
    first_states = 2 * 3 * 4 * gates * hidden * hidden
    assert 3 * by_hand - first_states <= count_flops(lambda: net(x)[0].sum().backward()) <= 3 * by_hand


def test_flops_of_products_of_vectors_and_of_three():
    a, b, v = torch.randn(4, 5), torch.randn(5, 6), torch.randn(5)
    for count in (in_inference, without_gradients):
        assert count(torch.mv, a, v) == count(torch.matmul, a, v) == count(torch.addmv, torch.randn(4), a, v) == 2 * 20
        assert count(torch.dot, v, v) == 2 * 5
        assert count(torch.addmm, torch.randn(4, 6), a, b) == count(torch.einsum, "ij,jk->ik", a, b) == 2 * 4 * 5 * 6
        assert count(torch.baddbmm, torch.randn(3, 4, 6), a.expand(3, 4, 5), b.expand(3, 5, 6)) == 2 * 3 * 120
        assert count(torch.addbmm, torch.randn(4, 6), a.expand(3, 4, 5), b.expand(3, 5, 6)) == 2 * 3 * 120
    net = nn.Bilinear(5, 6, 3)
    x, y = torch.randn(4, 5, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    assert in_inference(net, x, y) == without_gradients(net, x, y) == 2 * 4 * 3 * 5 * 6
    assert count_flops(lambda: net(x, y).sum().backward()) == 4 * 2 * 4 * 3 * 5 * 6  # of both inputs and the weight
    grid = nn.functional.affine_grid
    assert in_inference(grid, torch.randn(4, 2, 3), [4, 1, 5, 6], align_corners=False) == 2 * 4 * 5 * 6 * 2 * 3


def test_flops_of_transposed_convolution_in_groups_with_outputs_left_over():
    net, x = nn.ConvTranspose2d(6, 8, 3, stride=2, output_padding=1, groups=2), torch.randn(2, 6, 5, 5)
    by_hand = 2 * 2 * 6 * 25 * 4 * 9
    assert in_inference(net, x) == by_hand
    assert count_flops(lambda: net(x.requires_grad_()).sum().backward()) == 3 * by_hand


def test_flops_of_deformable_convolution_and_of_boxes():
    images, weight, offset = torch.randn(2, 4, 6, 6), torch.randn(5, 4, 3, 3), torch.randn(2, 18, 4, 4)
    assert in_inference(deform_conv2d, images, offset, weight) == 2 * 2 * 5 * 16 * 4 * 9
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [1.0, 1.0, 4.0, 4.0]])
    assert in_inference(nms, boxes, torch.rand(2), 0.5) == in_inference(roi_align, images, [boxes, boxes], 2) == 0


def test_what_multiplies_no_matrices_counts_nothing():
    x = torch.randn(2, 4, 6, 6)
    net = nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.Upsample(scale_factor=2), nn.MaxPool2d(2))
    assert in_inference(net, x) == of_a_step(net, x) == 0
    assert in_inference(nn.functional.interpolate, x, scale_factor=2, mode="bilinear") == 0
    assert in_inference(torch.fft.fft2, x) == in_inference(torch.linalg.vector_norm, x) == 0


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_counts_as_the_network(backend):
    net, x = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)), torch.randn(4, 8)
    compiled = torch.compile(net, backend=backend)
    by_hand = 2 * 2 * 4 * 8 * 16
    assert count_flops(compiled, x) == by_hand
    compiled(x)
    assert count_flops(compiled, x) == in_inference(compiled, x) == by_hand
    assert of_a_step(compiled, x) == 3 * by_hand - 2 * 4 * 8 * 16


# --- unknown ----------------------------------------------------------------------------------------------------------


@torch.library.custom_op("transferscope_tests::product", mutates_args=())
def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


@torch.library.custom_op("transferscope_tests::activation", mutates_args=())
def activation(a: torch.Tensor) -> torch.Tensor:
    return a * 2


def test_an_operator_that_nobody_knows_makes_the_figure_unknown():
    a = torch.randn(4, 4)
    assert unknown("transferscope_tests::product", lambda: product(a @ a, a))
    assert unknown("transferscope_tests::product", lambda: product(a, a), count=without_gradients)
    assert in_inference(activation, a) == 0


def test_a_formula_that_is_registered_with_torch_makes_it_known():
    operator, a = torch.ops.transferscope_tests.product, torch.randn(4, 4)
    register_flop_formula(operator)(lambda a, b, **_: 2 * a[0] * a[1] * b[1])
    try:
        assert in_inference(lambda: product(a @ a, a)) == 2 * 2 * 64
    finally:
        del flop_registry[operator]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_layers_are_unknown():
    net = nn.Sequential(nn.Linear(8, 4), torch.ao.nn.quantized.dynamic.Linear(4, 2))
    assert math.isnan(in_inference(net, torch.randn(3, 8)))


def test_products_without_a_formula_are_unknown():
    for points, kernel in ((20, "_cdist_forward"), (30, "_euclidean_dist")):
        a = torch.randn(3, points, 4)
        assert unknown(f"aten::{kernel}", torch.cdist, a, a)
    assert unknown("aten::linalg_inv_ex", torch.linalg.inv, torch.eye(3))
    assert unknown("aten::matmul", lambda: torch.eye(4).to_sparse() @ torch.eye(4))


def test_stages_before_an_unknown_operator_are_known():
    class Unknown(nn.Module):
        def forward(self, x):
            return product(x, x.mT.contiguous())

    product.register_autograd(lambda context, grad: (None, None))
    net = nn.Sequential(nn.Linear(6, 4), Unknown(), nn.Linear(5, 2))
    with pytest.warns(TransferscopeWarning, match="product"):
        calls = trace(net, torch.randn(1, 5, 6))
    flops = {call.layer: call.flops for call in calls}
    assert flops["0"] == 2 * 5 * 6 * 4
    assert math.isnan(flops["1"])
    assert math.isnan(flops["2"])
