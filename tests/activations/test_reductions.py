"""Every reduction against plain NumPy: maps, channels-last maps, tokens, vectors and half precision."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from transferscope.activations.reductions import (
    CommonPositions,
    channel_axis,
    has_class_token,
    map_side,
    positions,
    reducer,
    unordered,
)
from transferscope.errors import CaptureError, InputError


def random(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


MAPS = random(3, 4, 6, 5)  # channels first, and not square
LAST = random(3, 6, 6, 4)  # channels last
TOKENS = random(3, 10, 4)  # nine patches and a class token
BARE = random(3, 9, 4)  # nine patches
VECTORS = random(3, 7)


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
    ("name", "output", "expected"),
    [
        ("flatten", MAPS, lambda x: x.reshape(3, -1)),
        ("flatten", LAST, lambda x: x.transpose(0, 3, 1, 2).reshape(3, -1)),
        ("flatten", TOKENS, lambda x: x.transpose(0, 2, 1).reshape(3, -1)),
        ("flatten", VECTORS, lambda x: x),
        ("flatten", VECTORS[:, 0], lambda x: x[:, None]),
        ("mean", MAPS, lambda x: x.mean((2, 3))),
        ("mean", LAST, lambda x: x.mean((1, 2))),
        ("mean", TOKENS, lambda x: x.mean(1)),
        ("mean", VECTORS, lambda x: x),
        ("mean", VECTORS[:, 0], lambda x: x[:, None]),
        ("mean", random(2, 3, 4, 5, 6), lambda x: x.mean((2, 3, 4))),
        ("grid", MAPS, lambda x: averaged(x.transpose(0, 2, 3, 1), 2, 2).transpose(0, 3, 1, 2).reshape(3, -1)),
        ("grid", LAST, lambda x: averaged(x, 2, 2).transpose(0, 3, 1, 2).reshape(3, -1)),
        ("grid", random(3, 4, 1, 1), lambda x: np.repeat(x.reshape(3, 4), 4, axis=1)),
        ("grid", TOKENS, lambda x: x.mean(1)),
        ("grid", VECTORS, lambda x: x),
        ("class_token", TOKENS, lambda x: x[:, 0]),
        ("positions", MAPS, lambda x: x.transpose(0, 2, 3, 1).reshape(-1, 4)),
        ("positions", LAST, lambda x: x.reshape(-1, 4)),
        ("positions", TOKENS, lambda x: x[:, 1:].reshape(-1, 4)),
        ("positions", BARE, lambda x: x.reshape(-1, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", ["contiguous", "strided"])
def test_reductions_are_what_they_say(name, output, expected, dtype, memory):
    output = output.to(dtype)
    if memory == "strided":
        # The same numbers in another order of memory, as channels_last networks have them.
        output = (
            output.movedim(1, -1).contiguous().movedim(-1, 1)
            if output.ndim > 1
            else torch.stack([output, output], 1)[:, 0]
        )
    before = output.clone()
    found = reducer(name)(output)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(found, expected(output.double().numpy()), rtol=1e-6, atol=1e-6)
    assert torch.equal(output, before)


@pytest.mark.parametrize("name", [None, "flatten", "mean", "grid", "class_token", "positions"])
@pytest.mark.parametrize("output", [TOKENS, MAPS, LAST, VECTORS, VECTORS[:, 0]], ids=lambda t: str(tuple(t.shape)))
def test_trap_1_what_is_kept_does_not_follow_later_changes_in_place(name, output):
    if (name == "class_token" and output is not TOKENS) or (name == "positions" and output.ndim < 3):
        return
    for layout in (output.clone(), output.clone().movedim(0, -1).contiguous().movedim(-1, 0)):
        kept = reducer(name)(layout)
        before = kept.clone()
        layout.zero_()
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


# --- what a shape says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((2, 64, 7, 7), 1),
        ((2, 7, 7, 64), 3),
        ((2, 7, 7, 7), 1),
        ((2, 64, 7, 5), 1),
        ((2, 1, 1, 512), 3),
        ((2, 197, 192), 2),
        ((2, 10), 1),
        ((2, 3, 4, 5, 6), 1),
    ],
)
def test_channels_are_found(shape, axis):
    assert channel_axis(shape) == axis


@pytest.mark.parametrize(
    ("shape", "token", "side"),
    [
        ((197, 192), True, (14, 14)),
        ((196, 192), False, (14, 14)),
        ((198, 192), True, None),  # a distillation token more: no square is left
        ((2, 8), True, (1, 1)),
        ((1, 8), False, (1, 1)),
        ((64, 7, 5), False, (7, 5)),
        ((7, 7, 64), False, (7, 7)),
        ((512,), False, None),
        ((), False, None),
    ],
)
def test_class_token_and_positions_are_told_by_the_shape(shape, token, side):
    assert has_class_token(shape) is token
    assert map_side(shape) == side


@pytest.mark.parametrize("output", [BARE, VECTORS, MAPS])
def test_without_a_class_token_there_is_an_error(output):
    with pytest.raises(CaptureError, match="class token before a square grid of patches"):
        reducer("class_token")(output)


@pytest.mark.parametrize("output", [VECTORS, random(3, 12, 4)])
def test_without_positions_there_is_an_error(output):
    with pytest.raises(CaptureError, match=r"got an output of shape \(3, "):
        reducer("positions")(output)


# --- positions at one resolution ----------------------------------------------------------------------------------


def test_common_positions_average_every_layer_to_the_smallest_height_and_width():
    outputs = [MAPS, LAST, random(3, 17, 4), random(3, 16, 4)]
    common = CommonPositions([output.shape[1:] for output in outputs])
    assert common.per_sample == 16  # 4 × 4, of the tokens
    for output, maps in zip(
        outputs,
        [MAPS.permute(0, 2, 3, 1), LAST, outputs[2][:, 1:].reshape(3, 4, 4, 4), outputs[3].reshape(3, 4, 4, 4)],
        strict=True,
    ):
        expected = averaged(maps.numpy(), 4, 4).reshape(-1, 4)
        np.testing.assert_allclose(common(output), expected, atol=1e-12)


def test_common_positions_take_height_and_width_each_from_where_it_is_smallest():
    common = CommonPositions([(3, 2, 8), (3, 8, 5), (9,)])
    assert common.per_sample == 10
    assert common(random(2, 3, 8, 5)).shape == (20, 3)


def test_rows_of_positions_belong_to_one_image_after_the_other():
    maps = torch.arange(2.0)[:, None, None, None] * 100 + torch.arange(12.0).reshape(3, 4).expand(1, 3, 4)
    rows = positions(maps)
    assert rows[:, 0].tolist() == [*range(12), *range(100, 112)]


# --- in any order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        MAPS,
        MAPS.contiguous(memory_format=torch.channels_last),
        LAST,
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
    "output", [MAPS, MAPS.contiguous(memory_format=torch.channels_last), LAST, TOKENS, TOKENS.transpose(1, 2)]
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
