"""What is said of axes holds: values that tell where they came from are rearranged at random, and looked at."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from transferscope.activations.axes import CHANNELS, HEIGHT, SAMPLES, WIDTH, length, of_images, reshaped, roles
from transferscope.activations.dataflow import Dataflow
from transferscope.activations.layout import layout_of

NAMES = [SAMPLES, CHANNELS, HEIGHT, WIDTH]
SHAPE = (2, 6, 4, 4)  # height and width equal: lengths tell nothing


def places():
    """Return values that say at which index of each of the four axes they were, each index in its own decimal."""
    grid = np.indices(SHAPE)
    return torch.from_numpy(sum(grid[axis] * 10.0 ** (2 * axis) for axis in range(4)))


def rearranged(x, rng):
    """Rearrange a tensor by one operation, drawn at random."""
    kind, dim = rng.integers(9), int(rng.integers(x.ndim))
    size = x.shape[dim]
    if kind == 0:
        return x.permute(*rng.permutation(x.ndim).tolist())
    if kind == 1 and x.ndim > 1:
        start = int(rng.integers(x.ndim - 1))
        return x.flatten(start, start + 1)
    if kind == 2 and size % 2 == 0 and size > 2:
        return x.unflatten(dim, (2, -1) if rng.integers(2) else (-1, 2))
    if kind == 3 and size > 2:
        return x.narrow(dim, 1, size - 1)
    if kind == 4:
        return torch.cat([x, x.narrow(dim, 0, 1)], dim)
    if kind == 5:
        return x.unsqueeze(dim)
    if kind == 6 and x.ndim > 2:
        return x.select(dim, 0)
    if kind == 7:
        return x.split(max(1, size // 2), dim)[-1]
    return x.transpose(dim, -1).contiguous()


@pytest.mark.parametrize("seed", range(40))
def test_along_an_axis_only_that_changes_which_it_is_said_to_stand_for(seed):
    rng = np.random.default_rng(seed)
    known = 0
    with torch.inference_mode():
        x = places()
        with Dataflow(nn.Identity(), x) as flow:
            for _ in range(7):
                x = rearranged(x, rng)
                axes = flow.axes(x)
                assert tuple(map(length, axes)) == tuple(x.shape)
                for dim, axis in enumerate(axes):
                    known += bool(roles(axis))
                    for place, name in enumerate(NAMES):
                        index = x // 100**place % 100
                        if roles(axis) and name not in roles(axis):
                            assert bool((index == index.narrow(dim, 0, 1)).all()), (name, dim, axes)
    assert known > 7


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 6, 16), [{SAMPLES}, {CHANNELS}, {HEIGHT, WIDTH}]),
        ((2, 2, 3, 16), [{SAMPLES}, {CHANNELS}, {CHANNELS}, {HEIGHT, WIDTH}]),
        ((2, 6, 2, 2, 4), [{SAMPLES}, {CHANNELS}, {HEIGHT}, {HEIGHT}, {WIDTH}]),
        ((12, 4, 4), [{SAMPLES, CHANNELS}, {HEIGHT}, {WIDTH}]),
        ((3, 64), [set(), set()]),  # borders of no axis
        ((192,), [{SAMPLES, CHANNELS, HEIGHT, WIDTH}]),
    ],
)
def test_reshaping_keeps_what_it_can(shape, expected):
    axes = reshaped(of_images(SHAPE), shape)
    assert [set(roles(axis)) for axis in axes] == expected
    assert tuple(map(length, axes)) == shape


def layout_after(function, *parameters, shape=(2, 3, 8, 8)):
    holder = nn.ParameterList(parameters)
    with torch.inference_mode():
        x = torch.zeros(shape)
        with Dataflow(holder, x) as flow:
            y = function(x, *holder)
            return layout_of(flow.axes(y), y.shape, None, nn.Identity())


W = nn.Parameter(torch.ones(5, 3, 2, 2))
P = nn.Parameter(torch.ones(7, 5))
T = nn.Parameter(torch.ones(16, 16))


@pytest.mark.parametrize(
    ("function", "parameters", "samples", "channels"),
    [
        (lambda x, w: functional.conv2d(x, w, stride=2), [W], 0, 1),
        (lambda x, w: functional.conv2d(x, w, stride=2).permute(2, 3, 0, 1), [W], 2, 3),
        (lambda x, w, p: functional.conv2d(x, w, stride=2).movedim(1, 3) @ p.T, [W, P], 0, 3),
        (lambda x, w, p: torch.einsum("nchw,dc->nhwd", functional.conv2d(x, w), p), [W, P], 0, 3),
        (lambda x, w, p: functional.linear(functional.conv2d(x, w).flatten(2).mT, p), [W, P], 0, 2),
        # Tokens are mixed by a linear layer, as in an MLP-Mixer: they stay tokens.
        (lambda x, w, t: functional.linear(functional.conv2d(x, w, stride=2).flatten(2), t), [W, T], 0, 1),
        (lambda x, w: functional.pixel_shuffle(functional.pad(x, (1, 1)).repeat(1, 4, 1, 1), 2), [W], 0, 1),
        (lambda x, w: functional.interpolate(functional.max_pool2d(x, 2), scale_factor=3), [W], 0, 1),
        (lambda x, w: torch.stack([x, x]).mean(0).roll(1, 2).movedim(0, 1), [W], 1, 0),
    ],
)
def test_channels_and_images_are_found_after(function, parameters, samples, channels):
    layout = layout_after(function, *parameters)
    assert (layout.samples, layout.channels, layout.assumed) == (samples, channels, False)


def test_what_no_rule_reads_is_not_known():
    layout = layout_after(lambda x: torch.as_strided(x, (2, 8, 3, 8), (192, 8, 64, 1)))
    assert layout.assumed
