"""Trajectories at matched steps and at matched loss, on trajectories made by hand."""

import math

import numpy as np
import pytest

from transferscope.errors import InputError
from transferscope.verbs.parameters.matching import common_loss, common_steps, point_at, step_of_loss
from transferscope.verbs.parameters.trajectory import Trajectory

STEPS = [0, 1, 2, 4, 8]


def straight(steps=STEPS, loss=None):
    """Two draws and three weights, at distances that grow with the steps along straight lines."""
    steps = np.array(steps)
    speed, start = np.array([0.1, 0.2, 0.5]), np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]])
    moved = steps[:, None] * speed
    return Trajectory(
        names=("a", "b", "c"),
        steps=steps,
        steps_per_epoch=2,
        loss=1 - steps / 10 if loss is None else np.array(loss, dtype=float),
        to_initial=start[:, None] + moved,
        to_source=moved,
        change=2 * moved,
        norm=np.ones(3),
    )


@pytest.mark.parametrize("step", [0, 0.25, 1, 1.5, 2.0, 3, 5.5, 7, 8])
def test_between_recorded_points_everything_is_linear_in_the_steps(step):
    point = point_at(straight(), step)
    moved = step * np.array([0.1, 0.2, 0.5])
    assert point.step == step
    assert point.loss == pytest.approx(1 - step / 10)
    np.testing.assert_allclose(point.to_source, moved, rtol=1e-12)
    np.testing.assert_allclose(point.change, 2 * moved, rtol=1e-12)
    np.testing.assert_allclose(point.to_initial, np.array([[1, 2, 3], [1.5, 2.5, 3.5]]) + moved, rtol=1e-12)


def test_distances_are_interpolated_and_not_their_ratios():
    """Half way between T = 3 / 1 and T = 4 / 4 the distances are 3.5 and 2.5: T is 1.4, not 2."""
    trajectory = Trajectory(
        names=("a",), steps=np.array([0, 2, 4]), steps_per_epoch=1, loss=np.ones(3),
        to_initial=np.array([[[2.0], [3.0], [4.0]]]), to_source=np.array([[0.0], [1.0], [4.0]]),
        change=np.zeros((3, 1)), norm=np.ones(1),
    )  # fmt: skip
    point = point_at(trajectory, 3)
    assert point.to_initial[0, 0] / point.to_source[0] == pytest.approx(1.4)


def test_recorded_points_come_back_bit_by_bit():
    draw = np.random.default_rng(0)
    trajectory = Trajectory(
        names=("a", "b"), steps=np.array(STEPS), steps_per_epoch=3, loss=draw.random(5),
        to_initial=draw.random((3, 5, 2)), to_source=draw.random((5, 2)), change=draw.random((5, 2)),
        norm=draw.random(2),
    )  # fmt: skip
    for i, step in enumerate(STEPS):
        point = point_at(trajectory, step)
        assert point.loss == trajectory.loss[i]
        np.testing.assert_array_equal(point.to_initial, trajectory.to_initial[:, i])
        np.testing.assert_array_equal(point.to_source, trajectory.to_source[i])
        np.testing.assert_array_equal(point.change, trajectory.change[i])


@pytest.mark.parametrize("step", [-1, -0.001, 8.001, 1e9, math.nan, math.inf])
def test_a_step_outside_the_trajectory_is_an_input_error(step):
    with pytest.raises(InputError, match=rf"`step` to lie between 0 and 8, the last .* but got {step}"):
        point_at(straight(), step)


@pytest.mark.parametrize(
    ("losses", "level", "step"),
    [
        ([1, 0.8, 0.6, 0.4, 0.5], 0.6, 2),
        ([1, 0.8, 0.6, 0.4, 0.5], 0.5, 3),
        ([1, 0.8, 0.6, 0.4, 0.5], 0.4, 4),
        ([1, 0.8, 0.6, 0.4, 0.5], 0.39, math.nan),
        ([1, 0.8, 0.6, 0.4, 0.5], -math.inf, math.nan),
        # Before the first recorded step the network has hardly moved, and T is as large as one likes.
        ([1, 0.8, 0.6, 0.4, 0.5], 0.8, 1),
        ([1, 0.8, 0.6, 0.4, 0.5], 0.9, 1),
        ([1, 0.8, 0.6, 0.4, 0.5], 1.0, 1),
        ([1, 0.8, 0.6, 0.4, 0.5], 1.5, 1),
        # It rises first, and crosses more than once.
        ([1, 1.2, 0.8, 1.1, 0.7], 0.9, 1.75),
        ([1, 1.2, 0.8, 1.1, 0.7], 1.0, 1.5),
        ([1, 1.2, 1.3, 1.3, 1.1], 1.1, 8),
        ([1, 1.2, 1.3, 1.3, 1.1], 1.0, math.nan),
    ],
)
def test_the_step_of_a_loss_is_its_first_crossing_after_step_zero(losses, level, step):
    found = step_of_loss(straight(loss=losses), level)
    assert found == pytest.approx(step, nan_ok=True)
    if found > 1:
        assert point_at(straight(loss=losses), found).loss == pytest.approx(level)


def test_a_loss_that_is_not_a_number_is_an_input_error():
    with pytest.raises(InputError, match="`loss` to be a number, but got nan"):
        step_of_loss(straight(), math.nan)


def test_all_trajectories_reach_the_common_steps_and_the_common_loss():
    trajectories = [
        straight([0, 1, 2, 4], loss=[1, 0.9, 0.7, 0.75]),
        straight([0, 1, 2, 3], loss=[0.2, 0.5, 0.4, 0.3]),  # where it began does not count
        straight([0, 1, 2, 4, 6], loss=[1.1, 0.6, 0.5, 0.2, 0.1]),
    ]
    assert common_steps(trajectories) == 3
    assert isinstance(common_steps(trajectories), int)
    assert common_loss(trajectories) == 0.7
    assert [step_of_loss(each, 0.7) for each in trajectories] == pytest.approx([2, 1, 1])


@pytest.mark.parametrize("common", [common_steps, common_loss])
def test_without_trajectories_nothing_is_common(common):
    with pytest.raises(InputError, match="at least one trajectory, but got none"):
        common([])
