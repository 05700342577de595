"""What operators that multiply matrices cost: formulas by operator name, from the shapes of the arguments.

A multiply-add counts as two. Arguments are looked up by their names, which outlive their order. An attention counts
as the products that it stands for, the same whatever kernel computes it: Q·Kᵀ and the weights times V, masked or causal
entries included; backward twice that, for the gradients of V, of the weights, of Q and of K (a fused kernel computes
all of them), without the Q·Kᵀ that such kernels compute once more.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Size, Tensor

Arguments = Mapping[str, Any]
"""Of one call, by name: tensors are `Size`s, those of `_OFFSETS` lists of lengths; `returned` is what came back."""
Formula = Callable[[Arguments], int]

_OFFSETS = ("cum_seq_q", "cum_seq_k", "cu_seqlens_q", "cu_seqlens_k")
"""Where each sequence starts in sequences that are laid end to end, and where the last one ends."""
_OTHER_LENGTHS = ("seqused_k", "seqlen_k", "block_table")
"""Arguments that shorten sequences further."""
_HEAD_STEP = 8


def formula_of(name: str) -> Formula | None:
    """Return the formula of the operator with this qualified name ("aten::mm"), None when there is none."""
    name = name.removesuffix("_")  # in place
    if name in _FORMULAS:
        return _FORMULAS[name]
    # A kernel of attention that is new is called as the others are.
    if name.startswith(("aten::_scaled_dot_product_", "aten::scaled_dot_product_")):
        return _attention_backward if name.endswith("_backward") else _attention
    return None


def attention_of_any_score(name: str, args: tuple[Any, ...]) -> int:
    """Return what `flex_attention` or its backward costs, which torch writes as functions of operators.

    Raises
    ------
    ValueError
        When `name` is another such function.
    """
    if name not in ("flex_attention", "flex_attention_backward"):
        raise ValueError(f"no formula for {name}")
    given = {argument: value.shape for argument, value in zip(("query", "key", "value"), args[:3], strict=True)}
    return _attention_backward(given) // (1 if name.endswith("_backward") else 2)


def arguments_of(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], returned: Any) -> Iterator[Arguments]:
    """Yield the arguments of a call as formulas take them: once, or for each part of nested tensors.

    Raises
    ------
    ValueError
        When the shapes do not tell what is computed: of sparse tensors, or of parts that do not belong together.
    """
    names = (argument.name for argument in func._schema.arguments)
    given = {**dict(zip(names, args, strict=False)), **kwargs, "returned": returned}
    tensors = [value for value in _flat(given.values()) if isinstance(value, Tensor) and value.is_nested]
    if not tensors:
        yield {name: _shaped(name, value) for name, value in given.items()}
        return
    parts = {id(tensor): [Size(size) for size in tensor._nested_tensor_size().tolist()] for tensor in tensors}
    count = max(map(len, parts.values()))
    if any(len(sizes) != count for sizes in parts.values()):
        raise ValueError("nested tensors of different length")
    for i in range(count):
        yield {name: _shaped(name, value, parts, i) for name, value in given.items()}


def _shaped(name: str, value: Any, parts: Mapping[int, list[Size]] | None = None, part: int = 0) -> Any:
    if isinstance(value, Tensor):
        if parts and id(value) in parts:
            return parts[id(value)][part]
        if name in _OFFSETS:
            return value.diff().tolist()
        if value.layout not in (torch.strided, torch._mkldnn):  # type: ignore[attr-defined]
            raise ValueError("sparse tensors")
        return value.shape
    if isinstance(value, (list, tuple)):
        return [_shaped(name, each, parts, part) for each in value]
    return value


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


# --- matrices -----------------------------------------------------------------------------------------------------


def _product(first: str) -> Formula:
    """Return the formula of a product that sums over the last dimension of `first`."""
    return lambda given: 2 * prod(given["returned"]) * given[first][-1]


def _sum_of_products(given: Arguments) -> int:
    return 2 * prod(given["batch1"]) * given["batch2"][-1]


def _trilinear(given: Arguments) -> int:
    """Products of all three, summed; the first product of each term is not counted, as little as a scale elsewhere."""
    shapes = []
    for tensor, expanded in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        shape = list(given[tensor])
        for place in sorted(given[expanded]):
            shape.insert(place, 1)
        shapes.append(shape)
    return 2 * prod(torch.broadcast_shapes(*shapes))


def _product_backward(grad: str, wanted: str) -> Formula:
    return lambda given: 2 * prod(given[grad]) * given["self"][-1] * sum(given[wanted][:2])


# --- convolutions -------------------------------------------------------------------------------------------------


def _convolution(given: Arguments) -> int:
    return _applied_kernel(given["returned"], given["weight"])


def _transposed_convolution(given: Arguments) -> int:
    return _applied_kernel(given["input"] if "input" in given else given["self"], given["weight"])


def _any_convolution(given: Arguments) -> int:
    return _transposed_convolution(given) if given["transposed"] else _convolution(given)


def _convolution_backward(given: Arguments) -> int:
    """Each of the two gradients takes as many operations as the convolution itself."""
    spread = given["input"] if given["transposed"] else given["grad_output"]
    return _applied_kernel(spread, given["weight"]) * sum(given["output_mask"][:2])


def _applied_kernel(values: Size, weight: Size) -> int:
    """Apply a kernel (filters, channels of its group, ...) at all values: of the output, if transposed of the input."""
    return 2 * prod(values) * prod(weight[1:])


def _convolution_over_time(given: Arguments) -> int:
    return 2 * prod(given["returned"]) * prod(given["weight"][:2])


# --- attention ----------------------------------------------------------------------------------------------------


def _attention(given: Arguments) -> int:
    """Of (..., heads, length, width) each; grouped keys and values meet as many queries as there are."""
    returned = given["returned"]
    # Batches may broadcast, which only the result shows.
    rows = prod((returned if isinstance(returned, Size) else returned[0])[:-1])
    return 2 * rows * given["key"][-2] * _widths(given)


def _attention_backward(given: Arguments) -> int:
    return 4 * prod(given["query"][:-1]) * given["key"][-2] * _widths(given)


def _widths(given: Arguments) -> int:
    return int(given["query"][-1] + given["value"][-1])


def _flash(formula: Formula) -> Formula:
    """Take off the columns of zeros that fill heads up to a multiple of eight before the kernel is called.

    Only the scale, 1/√width unless the caller chose another one, still tells of the width before.
    """

    def unfilled(given: Arguments) -> int:
        filled, scale = given["query"][-1], given.get("scale")
        width = round(scale**-2) if scale is not None and scale > 0 else filled
        if scale is None or not filled - _HEAD_STEP < width < filled or not math.isclose(scale**-2, width):
            return formula(given)
        return formula({**given, **{name: Size((*given[name][:-1], width)) for name in ("query", "value")}})

    return unfilled


def _kernel(times: int, length_at: int) -> Formula:
    """Return the formula of a kernel below those of attention, which may get sequences laid end to end."""

    def formula(given: Arguments) -> int:
        if any(given.get(name) is not None for name in _OTHER_LENGTHS):
            raise ValueError("lengths that are not known")
        queries = given.get("cum_seq_q", given.get("cu_seqlens_q"))
        keys = given.get("cum_seq_k", given.get("cu_seqlens_k"))
        query = given["query"]
        if queries is None:
            return times * 2 * prod(query[:-1]) * given["key"][length_at] * _widths(given)
        pairs = sum(q * k for q, k in zip(queries, keys, strict=True))
        return times * 2 * query[-2] * pairs * _widths(given)

    return formula


def _multi_head(given: Arguments) -> int:
    """Projections of queries, keys and values, attention, and the projection of what comes out."""
    query, key, value, width = given["query"], given["key"], given["value"], given["embed_dim"]
    projections = (2 * prod(query) + prod(key) + prod(value)) * width
    return 2 * projections + 4 * prod(query) * key[-2]


def _encoder_layer(given: Arguments) -> int:
    source = given["src"]
    rows = prod(source[:-1])
    feedforward = 2 * rows * (prod(given["ffn_weight_1"]) + prod(given["ffn_weight_2"]))
    return _multi_head({**given, "query": source, "key": source, "value": source}) + feedforward


# --- recurrent layers ---------------------------------------------------------------------------------------------


def _recurrent_layer(times: int, *weights: str) -> Formula:
    """Every step multiplies by the two weights of the layer."""
    return lambda given: times * 2 * prod(given["input"][:-1]) * sum(prod(given[name]) for name in weights)


def _recurrent_stack(times: int, weights: str) -> Formula:
    """Every step multiplies by the matrices among the weights of all layers and directions."""

    def formula(given: Arguments) -> int:
        matrices = sum(prod(weight) for weight in given[weights] if len(weight) == 2)
        return times * 2 * prod(given["input"][:-1]) * matrices

    return formula


_FORMULAS: dict[str, Formula] = {
    **{f"aten::{name}": _product("self") for name in (
        "mm", "bmm", "mv", "dot", "vdot", "matmul", "mkldnn_linear", "_int_mm", "_scaled_mm", "_weight_int8pack_mm",
    )},
    **{f"aten::{name}": _product("mat1") for name in ("addmm", "_addmm_activation")},
    "aten::linear": _product("input"),
    "aten::baddbmm": _product("batch1"),
    "aten::addmv": _product("mat"),
    "aten::addbmm": _sum_of_products,
    "aten::_trilinear": _trilinear,
    "aten::affine_grid_generator": _product("theta"),
    "aten::cudnn_affine_grid_generator": _product("theta"),
    "aten::linear_backward": _product_backward("grad_output", "output_mask"),
    "aten::mkldnn_linear_backward": _product_backward("grad_output", "output_mask"),
    "aten::matmul_backward": _product_backward("grad", "mask"),
    **{f"aten::{name}": _any_convolution for name in ("convolution", "_convolution", "convolution_overrideable")},
    **{f"aten::{name}": _convolution for name in (
        "cudnn_convolution", "cudnn_convolution_relu", "cudnn_convolution_add_relu", "miopen_convolution",
        "miopen_convolution_relu", "miopen_convolution_add_relu", "miopen_depthwise_convolution", "mkldnn_convolution",
        "_mps_convolution", "_nnpack_spatial_convolution", "_conv_depthwise2d", "conv_depthwise3d",
        "_slow_conv2d_forward", "slow_conv3d_forward", "slow_conv_dilated2d", "slow_conv_dilated3d",
    )},
    **{f"aten::{name}": _transposed_convolution for name in (
        "cudnn_convolution_transpose", "miopen_convolution_transpose", "_mps_convolution_transpose",
        "slow_conv_transpose2d", "slow_conv_transpose3d",
    )},
    "aten::conv_tbc": _convolution_over_time,
    "aten::convolution_backward": _convolution_backward,
    "aten::convolution_backward_overrideable": _convolution_backward,
    "torchvision::deform_conv2d": _convolution,
    "aten::_scaled_dot_product_flash_attention": _flash(_attention),
    "aten::_scaled_dot_product_flash_attention_backward": _flash(_attention_backward),
    "aten::_flash_attention_forward": _flash(_kernel(1, -3)),
    "aten::_flash_attention_backward": _flash(_kernel(2, -3)),
    "aten::_efficient_attention_forward": _kernel(1, -3),
    "aten::_efficient_attention_backward": _kernel(2, -3),
    "aten::_cudnn_attention_forward": _kernel(1, -2),
    "aten::_cudnn_attention_backward": _kernel(2, -2),
    "aten::_native_multi_head_attention": _multi_head,
    "aten::_triton_multi_head_attention": _multi_head,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::mkldnn_rnn_layer": _recurrent_layer(1, "weight0", "weight1"),
    "aten::mkldnn_rnn_layer_backward": _recurrent_layer(2, "weight1", "weight2"),
    "aten::_cudnn_rnn": _recurrent_stack(1, "weight"),
    "aten::_cudnn_rnn_backward": _recurrent_stack(2, "weight"),
    "aten::miopen_rnn": _recurrent_stack(1, "weight"),
    "aten::miopen_rnn_backward": _recurrent_stack(2, "weight"),
    "aten::_lstm_mps": _recurrent_stack(1, "params"),
}  # fmt: skip


# --- operators without a formula ----------------------------------------------------------------------------------

_MULTIPLIES = re.compile(
    r"(^|_)([a-z]*mm|(add)?mv|v?dot|matmul|conv(?!ert)\w*|\w*linear\w*|\w*attention\w*|encoder_layer|einsum|tensordot"
    r"|lstm|gru|rnn|cdist|euclidean_dist|linalg|cholesky|ormqr|geqrf|inverse|(sp)?solve|affine_grid)(?=_|\d|$)"
)
_MULTIPLIES_NOT = re.compile(
    r"upsample|prepack|reorder|flatten_weight|_thnn_fused|linalg_(vector_norm|cross|_powsum|check_errors)|slice_inverse"
)
_WITHOUT_PRODUCTS = (
    "prim", "prims", "profiler", "c10d", "_c10d_functional", "_c10d_functional_autograd", "c10d_functional", "_dtensor",
    "fsdp", "image", "streams", "rngprims", "debugprims", "inductor_prims", "export",
)  # fmt: skip
"""Libraries of operators that move, draw, read or look."""
_NO_PRODUCTS = re.compile(r"torchvision::(nms|_?(ps_)?roi_(align|pool)(_backward)?)$")


def may_multiply(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator without a formula may multiply matrices.

    Torch's own are known by their names, a Fourier transform is none of them; others that get two tensors of numbers,
    or packed weights, may do anything.
    """
    namespace, _, name = func._schema.name.partition("::")
    if namespace == "aten":
        return bool(_MULTIPLIES.search(name)) and not _MULTIPLIES_NOT.search(name)
    if namespace in _WITHOUT_PRODUCTS or _NO_PRODUCTS.match(func._schema.name):
        return False
    given = list(_flat([*args, *kwargs.values()]))
    numbers = [
        value
        for value in given
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex() or value.is_quantized)
    ]
    return len(numbers) >= 2 or any(isinstance(value, torch.ScriptObject) for value in given)
