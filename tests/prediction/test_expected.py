"""Expected accuracies beside the scores: padding, what is impossible, more images, and no scratch network."""

import numpy as np
import pytest
import xarray as xr

from transferscope.errors import InputError
from transferscope.prediction.belief import believe
from transferscope.prediction.covariates import CUT_PROTOCOLS
from transferscope.prediction.expected import expected_accuracies
from transferscope.prediction.observation import Observation
from transferscope.transferability.scores import NEEDED


def scores(**attributes):
    """Two sources, of two and of three stages."""
    known = {"n_samples": 40, "classes": 4, "scratch_accuracy": 0.5, "scratch_held_out": 20, **attributes}
    layer = np.array([["a", "b", ""], ["x", "y", "z"]], dtype=object)
    share = np.array([[1 / 2, 1, np.nan], [1 / 3, 2 / 3, 1]])
    values = {name: np.where(layer == "", np.nan, 0.25) for name in NEEDED}
    values |= {"layer": layer, "depth_fraction": share}
    return xr.Dataset(
        {name: (("source", "depth"), array) for name, array in values.items()},
        coords={"source": ["two", "three"], "depth": [1, 2, 3]},
        attrs={name: value for name, value in known.items() if value is not None},
    )  # fmt: skip


def test_each_cut_and_protocol_has_its_prediction_and_padding_has_none():
    before = scores()
    found, belief = expected_accuracies(before, 40), believe(before, 40)
    assert found["expected_accuracy"].dims == ("source", "depth", "protocol")
    assert found["protocol"].to_numpy().tolist() == list(CUT_PROTOCOLS)
    for place, ends in zip(belief.rows.itertuples(), belief.expected().itertuples(), strict=True):
        if place.protocol != "scratch":
            here = found.sel(source=place.source, depth=place.depth, protocol=place.protocol)
            assert float(here["expected_accuracy"]) == ends.expected_accuracy
            assert float(here["lower"]) == ends.lower < ends.expected_accuracy < ends.upper == float(here["upper"])
    assert float(found["scratch_expected_accuracy"]) == belief.expected()["expected_accuracy"].iloc[-1]
    assert np.isnan(found["expected_accuracy"].sel(source="two", depth=3)).all()
    xr.testing.assert_identical(
        found[list(before)].drop_vars("protocol", errors="ignore").drop_attrs(), before.drop_attrs()
    )
    assert {found[name].attrs["units"] for name in ("expected_accuracy", "lower", "upper", "scratch_upper")} == {"1"}
    assert found["scratch_lower"].attrs["long_name"] == "expected accuracy, lower end, from scratch"
    assert found["protocol"].attrs["long_name"] == "protocol"
    assert found.attrs["samples"] == 40


def test_nothing_is_expected_of_what_is_impossible():
    reasons = np.full((2, 3, len(CUT_PROTOCOLS)), "", dtype=object)
    reasons[1, 0, CUT_PROTOCOLS.index("reinit")] = "lies inside a residual connection"
    found = expected_accuracies(
        scores()
        .assign(impossible=(("source", "depth", "protocol"), reasons))
        .assign_coords(protocol=list(CUT_PROTOCOLS)),
        40,
    )["expected_accuracy"].sel(source="three", depth=1)
    assert np.isnan(found.sel(protocol="reinit"))
    assert found.sel(protocol="finetune").notnull()


def test_far_beyond_what_was_measured_intervals_widen_and_nothing_falls_off():
    widths = []
    for samples in (40, 400, 40_000, 4_000_000):
        here = expected_accuracies(scores(), samples).sel(source="three", depth=2, protocol="finetune")
        low, high = (np.log(float(here[end]) / (1 - float(here[end]))) for end in ("lower", "upper"))
        widths.append(high - low)
    assert widths == sorted(widths)
    assert np.isfinite(widths).all()


def test_more_images_are_expected_to_raise_accuracies():
    few, many = (expected_accuracies(scores(), samples)["expected_accuracy"] for samples in (40, 400))
    assert (many.sel(protocol="truncate", source="three") > few.sel(protocol="truncate", source="three")).all()


def test_a_measured_transfer_moves_the_others_of_its_target():
    seen = Observation(source="two", depth=2, protocol="finetune", samples=40, accuracy=0.95, tested=200)
    before, after = (
        expected_accuracies(scores(), 40, observations=given)["expected_accuracy"].sel(protocol="finetune")
        for given in ((), (seen,))
    )
    assert (after > before).sel(source="three").all()


def test_without_a_scratch_network_there_is_a_prediction_all_the_same():
    found = expected_accuracies(scores(scratch_accuracy=None, scratch_held_out=None), 40)
    assert found["expected_accuracy"].sel(source="three").notnull().all()


def test_scores_that_are_nowhere_defined_are_an_error():
    lacking = scores()
    lacking["ridge"] = lacking["ridge"] * np.nan
    with pytest.raises(InputError, match="there is none"):
        expected_accuracies(lacking, 40)


def test_a_transfer_is_trained_on_at_least_one_image():
    with pytest.raises(InputError, match="`samples` to be a whole number of at least 1, but got 0"):
        expected_accuracies(scores(), 0)
