"""Every reduction against plain NumPy: maps, channels-last maps, tokens in any layout, vectors and half precision."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.activations.layout import Layout, usual
from transferscope.activations.reductions import CommonPositions, map_side, mean_over_positions, reducer, unordered
from transferscope.errors import CaptureError, InputError


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


MAPS = random(3, 4, 6, 5)  # channels first, and not square
SQUARE = random(3, 6, 6, 6)  # lengths tell nothing
TOKENS = random(3, 10, 4)  # a class token, a register, eight patches
BARE = random(3, 9, 4)  # nine patches
VECTORS = random(3, 7)
FIRST = usual(4)
LAST = Layout(channels=3)
PATCHES = Layout(channels=2, grid=(2, 4), before=2, made_from=("cls_token", "reg_token"), has_class_token=True)
GRID = Layout(channels=2, grid=(3, 3))
# The same numbers with the tokens first, as CLIP has them.
TOKENS_FIRST = TOKENS.movedim(1, 0)
PATCHES_FIRST = Layout(1, 2, grid=(2, 4), before=2, made_from=("cls_token", "reg_token"), has_class_token=True)


def averaged(maps, height, width):
    """Adaptive average pooling of (n, h, w, c), written out: window i goes from floor(ih / H) to ceil((i + 1)h / H)."""
    n, h, w, c = maps.shape
    result = np.empty((n, height, width, c))
    for i in range(height):
        for j in range(width):
            rows = slice(i * h // height, math.ceil((i + 1) * h / height))
            columns = slice(j * w // width, math.ceil((j + 1) * w / width))
            result[:, i, j] = maps[:, rows, columns].mean(axis=(1, 2))
    return result


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "output", "layout", "expected"),
    [
        ("flatten", MAPS, FIRST, lambda x: x.reshape(3, -1)),
        ("flatten", SQUARE, LAST, lambda x: x.transpose(0, 3, 1, 2).reshape(3, -1)),
        ("flatten", TOKENS, PATCHES, lambda x: x.transpose(0, 2, 1).reshape(3, -1)),
        ("flatten", TOKENS_FIRST, PATCHES_FIRST, lambda x: x.transpose(1, 2, 0).reshape(3, -1)),
        ("flatten", VECTORS, None, lambda x: x),
        ("flatten", VECTORS[:, 0], None, lambda x: x[:, None]),
        ("mean", MAPS, FIRST, lambda x: x.mean((2, 3))),
        ("mean", MAPS, None, lambda x: x.mean((2, 3))),
        ("mean", SQUARE, LAST, lambda x: x.mean((1, 2))),
        ("mean", TOKENS, PATCHES, lambda x: x.mean(1)),
        ("mean", TOKENS, None, lambda x: x.mean(1)),
        ("mean", TOKENS, Layout(channels=1), lambda x: x.mean(2)),  # (n, channels, positions) of a 1-d convolution
        ("mean", TOKENS_FIRST, PATCHES_FIRST, lambda x: x.mean(0)),
        ("mean", VECTORS, None, lambda x: x),
        ("mean", VECTORS[:, 0], None, lambda x: x[:, None]),
        ("mean", random(2, 3, 4, 5, 6), None, lambda x: x.mean((2, 3, 4))),
        ("grid", MAPS, None, lambda x: averaged(x.transpose(0, 2, 3, 1), 2, 2).transpose(0, 3, 1, 2).reshape(3, -1)),
        ("grid", SQUARE, LAST, lambda x: averaged(x, 2, 2).transpose(0, 3, 1, 2).reshape(3, -1)),
        ("grid", random(3, 4, 1, 1), None, lambda x: np.repeat(x.reshape(3, 4), 4, axis=1)),
        ("grid", TOKENS, PATCHES, lambda x: x.mean(1)),
        ("grid", VECTORS, None, lambda x: x),
        ("class_token", TOKENS, PATCHES, lambda x: x[:, 0]),
        ("class_token", TOKENS_FIRST, PATCHES_FIRST, lambda x: x[0]),
        ("positions", MAPS, None, lambda x: x.transpose(0, 2, 3, 1).reshape(-1, 4)),
        ("positions", SQUARE, LAST, lambda x: x.reshape(-1, 6)),
        ("positions", TOKENS, PATCHES, lambda x: x[:, 2:].reshape(-1, 4)),
        ("positions", TOKENS_FIRST, PATCHES_FIRST, lambda x: x[2:].transpose(1, 0, 2).reshape(-1, 4)),
        ("positions", BARE, GRID, lambda x: x.reshape(-1, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", ["contiguous", "strided"])
def test_reductions_are_what_they_say(name, output, layout, expected, dtype, memory):
    output = output.to(dtype)
    if memory == "strided":
        # The same numbers in another order of memory, as channels_last networks have them.
        output = (
            output.movedim(1, -1).contiguous().movedim(-1, 1)
            if output.ndim > 1
            else torch.stack([output, output], 1)[:, 0]
        )
    before = output.clone()
    found = reducer(name)(output, layout)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(found, expected(output.double().numpy()), rtol=1e-6, atol=1e-6)
    assert torch.equal(output, before)
    if name == "mean":
        assert torch.equal(mean_over_positions(output, layout or usual(output.ndim)), found)


@pytest.mark.parametrize("name", [None, "flatten", "mean", "grid", "class_token", "positions"])
@pytest.mark.parametrize(
    ("output", "layout"),
    [(TOKENS, PATCHES), (MAPS, FIRST), (SQUARE, LAST), (VECTORS, usual(2)), (VECTORS[:, 0], usual(1))],
    ids=lambda value: str(tuple(value.shape)) if isinstance(value, torch.Tensor) else "",
)
def test_trap_1_what_is_kept_does_not_follow_later_changes_in_place(name, output, layout):
    if (name == "class_token" and output is not TOKENS) or (name == "positions" and output.ndim < 3):
        return
    for stored in (output.clone(), output.clone().movedim(0, -1).contiguous().movedim(-1, 0)):
        kept = reducer(name)(stored, layout) if name else reducer(name)(stored)
        before = kept.clone()
        stored.zero_()
        assert torch.equal(kept, before)
        assert kept.abs().sum() > 0


def test_none_keeps_the_output_and_a_callable_is_taken_as_it_is():
    half = MAPS.half()
    assert torch.equal(reducer(None)(half), half)
    assert reducer(None)(half).dtype == torch.float16
    assert reducer(torch.relu) is torch.relu


@pytest.mark.parametrize("wrong", ["sum", "", "Flatten"])
def test_an_unknown_name_is_an_input_error(wrong):
    with pytest.raises(InputError, match=f"'flatten', 'mean', .*got {wrong!r}"):
        reducer(wrong)


# --- class token and positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "side"),
    [
        ((10, 4), PATCHES, (2, 4)),
        ((10, 4), usual(3), None),  # tokens of which nothing is known
        ((64, 7, 5), usual(4), (7, 5)),
        ((7, 5, 64), LAST, (7, 5)),
        ((7, 7, 7), None, (7, 7)),
        ((512,), usual(2), None),
        ((), usual(1), None),
    ],
)
def test_height_and_width_come_from_the_layout(shape, layout, side):
    assert map_side(shape, layout) == side


@pytest.mark.parametrize(
    ("made_from", "says", "place"),
    [
        (("cls_token",), None, 0),
        (("reg_token", "reg_token", "cls_token"), None, 2),
        (("encoder.class_embedding pos",), None, 0),
        (("reg_token",), None, None),  # a register alone
        (("cls_token",), False, None),  # the network knows better
        (("prefix", "prefix"), True, 0),
        (("prefix", "prefix"), None, None),
        (("first",), None, 0),  # one token that is called nothing else
        (("classifier_prompt",), None, None),
        ((), True, None),
    ],
)
def test_the_class_token_is_known_by_what_it_was_made_from(made_from, says, place):
    layout = Layout(channels=2, grid=(3, 3), before=len(made_from), made_from=made_from, has_class_token=says)
    assert layout.class_token == place


@pytest.mark.parametrize(("output", "layout"), [(BARE, GRID), (VECTORS, None), (MAPS, None)])
def test_without_a_class_token_there_is_an_error(output, layout):
    with pytest.raises(CaptureError, match="Expected tokens with a class token"):
        reducer("class_token")(output, layout)


@pytest.mark.parametrize("output", [VECTORS, TOKENS])
def test_without_positions_there_is_an_error(output):
    with pytest.raises(CaptureError, match=r"got an output of shape \(3, "):
        reducer("positions")(output)


# --- positions at one resolution ----------------------------------------------------------------------------------


def test_common_positions_average_every_layer_to_the_smallest_height_and_width():
    cases = [
        (MAPS, FIRST, MAPS.permute(0, 2, 3, 1)),
        (SQUARE, LAST, SQUARE),
        (TOKENS, PATCHES, TOKENS[:, 2:].reshape(3, 2, 4, 4)),
        (TOKENS_FIRST, PATCHES_FIRST, TOKENS[:, 2:].reshape(3, 2, 4, 4)),
    ]
    common = CommonPositions([map_side([*output[0].shape], layout) for output, layout, _ in cases[:3]])
    assert common.per_sample == 8  # 2 × 4, of the tokens
    for output, layout, maps in cases:
        expected = averaged(maps.numpy(), 2, 4).reshape(24, -1)
        np.testing.assert_allclose(common(output, layout), expected, atol=1e-12)


def test_common_positions_take_height_and_width_each_from_where_it_is_smallest():
    common = CommonPositions([(2, 8), (8, 5)])
    assert common.per_sample == 10
    assert common(random(2, 3, 8, 5)).shape == (20, 3)


def test_rows_of_positions_belong_to_one_image_after_the_other():
    maps = torch.arange(2.0)[:, None, None, None] * 100 + torch.arange(12.0).reshape(3, 4).expand(1, 3, 4)
    rows = reducer("positions")(maps)
    assert rows[:, 0].tolist() == [*range(12), *range(100, 112)]


# --- in any order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        MAPS,
        MAPS.contiguous(memory_format=torch.channels_last),
        SQUARE,
        TOKENS,
        TOKENS.transpose(1, 2),
        VECTORS,
        VECTORS[:, 0],
        VECTORS.half(),
        random(3, 1, 6, 6).expand(3, 4, 6, 6),
        random(6, 4, 6, 5)[::2],
        MAPS[:, 1:3, 2:],
    ],
)
def test_unordered_has_the_same_numbers_in_each_row(output):
    flat = unordered(output)
    assert flat.shape == (3, output[0].numel())
    expected = np.sort(output.reshape(3, -1).float().numpy(), axis=1)
    np.testing.assert_array_equal(np.sort(flat.float().numpy(), axis=1), expected)
    # The same order in every row: Gram matrices agree with the plain ones.
    plain = output.reshape(3, -1).double()
    np.testing.assert_allclose(flat.double() @ flat.double().T, plain @ plain.T, rtol=1e-6)


@pytest.mark.parametrize(
    "output", [MAPS, MAPS.contiguous(memory_format=torch.channels_last), SQUARE, TOKENS, TOKENS.transpose(1, 2)]
)
def test_unordered_copies_nothing_where_memory_is_in_one_piece(output):
    assert unordered(output).untyped_storage().data_ptr() == output.untyped_storage().data_ptr()


def test_reductions_work_on_what_networks_really_give():
    """A convolution's output in channels_last memory reduces to the same numbers as in the usual one."""
    conv = nn.Conv2d(3, 8, 3).double()
    images = random(2, 3, 9, 9)
    with torch.no_grad():
        usual, last = (
            conv(images),
            conv.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last)),
        )
    assert last.is_contiguous(memory_format=torch.channels_last)
    for name in ("flatten", "mean", "grid", "positions"):
        torch.testing.assert_close(reducer(name)(usual), reducer(name)(last))
