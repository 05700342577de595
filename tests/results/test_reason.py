"""Why a recommendation is made: the words, and that their figures are those that it was made from."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from beliefs import SPREAD, fixed_belief

from transferscope.prediction.selection import ScratchCandidate, recommend
from transferscope.results.reason import reason
from transferscope.results.recommendation import how

PROTOCOLS = ["truncate", "reinit", "finetune", "defrost"]


def predictions(best=0.8):
    """One source of three stages; its best is `best`, by fine-tuning after two of them."""
    expected = np.array([[[0.3, 0.4, 0.5, 0.65], [0.6, 0.5, best, 0.66], [0.4, 0.2, 0.7, 0.4]]])
    cuts = {"layer": [["stem", "middle", "top"]], "params": [[1, 2, 3]], "flops": [[10, 20, 30]]}
    scores = {"ridge": [[0.25, 0.625, 0.5]], "linear_cka_to_scratch": [[0.9, 0.375, np.nan]]}
    return xr.Dataset(
        {name: (("source", "depth"), values) for name, values in (cuts | scores).items()}
        | {"expected_accuracy": (("source", "depth", "protocol"), expected)}
        | {name: (("source", "depth", "protocol"), expected + by) for name, by in (("lower", -0.1), ("upper", 0.1))},
        coords={"source": ["net"], "depth": [1, 2, 3], "protocol": PROTOCOLS},
        attrs={
            "samples": 120, "classes": 6, "n_samples": 40, "scratch_accuracy": 0.97, "scratch_held_out": 500,
            "scratch_trained_on": 32,
        },
    )  # fmt: skip


def chosen(found, scratch, spread=SPREAD / 2**0.5):
    """Return what is recommended where one believes what `found` says, and that of training from scratch."""
    expected = found["expected_accuracy"]
    ways = {
        (source, int(depth), protocol): float(expected.sel(source=source, depth=depth, protocol=protocol))
        for source in expected["source"].to_numpy()
        for depth in expected["depth"].to_numpy()
        for protocol in expected["protocol"].to_numpy()
    }
    belief = fixed_belief(ways | {("", 0, "scratch"): scratch or 0.5}, spread=spread)
    candidate = None if scratch is None else ScratchCandidate("compact", scratch, 1000, 4, 7, 70)
    return recommend(found, belief, (), candidate)


def ranked(scratch, spread=SPREAD / 2**0.5, **options):
    found = predictions(**options)
    picks = chosen(found, scratch, spread)
    return {pick.source: reason(pick, picks, found) for pick in picks}


def test_a_reason_names_the_figures_that_it_is_drawn_from():
    # The interval is 1.2816 standard deviations of a logit to either side of ln 4: 1.2816 * 0.3 / sqrt(2) = 0.2719.
    assert ranked(0.2)["net"] == (
        "Expected to reach 0.800 [0.753, 0.840] when trained on 120 images (20 a class), cut after middle (depth 2 of "
        "3), what follows re-initialised, all of it fine-tuned. A linear head on its frozen features has a "
        "leave-one-out accuracy of 62.5% there, on 40 images (similarity to the scratch network: CKA 0.38). Kept to "
        "its last layer, 0.700 is expected; at best 0.600 after middle by truncate, 0.500 after middle by reinit and "
        "0.660 frozen up to middle by defrost. It is better than training from scratch (0.200)."
    )


def test_many_images_are_written_without_an_exponent():
    found = predictions()
    found.attrs.update(samples=10_000, classes=10)
    picks = chosen(found, 0.2)
    assert "trained on 10,000 images (1,000 a class), cut" in reason(picks[0], picks, found)


@pytest.mark.parametrize(
    ("scratch", "said"),
    [
        (0.2, "It is better than training from scratch (0.200)."),
        (
            0.79,
            "Whether that is better than training from scratch is not known (0.790). Tied with scratch: which is "
            "better is not known from these images.",
        ),
        (0.99, "It is no better than training from scratch (0.990)."),
    ],
)
def test_it_says_how_it_stands_against_training_from_scratch(scratch, said):
    assert ranked(scratch)["net"].endswith(said)


def test_level_is_said_otherwise_than_unknown():
    """0.8 and 0.8001 known to 0.002 differ by less than 0.01 for sure; known to 0.05 they may or may not."""
    level, unknown = "It is level with net: the choice hardly matters for accuracy.", "Tied with net: which is better"
    sure, unsure = ranked(0.8001, spread=0.0125)["scratch"], ranked(0.8001)["scratch"]
    assert level in sure
    assert "Tied" not in sure
    assert unknown in unsure
    assert "level" not in unsure


def test_the_scratch_network_has_a_reason_of_its_own():
    assert "It is expected to be better than net." in ranked(0.99)["scratch"]
    assert "Tied with net" in ranked(0.79)["scratch"]
    assert "scratch" not in ranked(None)["net"].replace("scratch network", "")


@pytest.mark.parametrize(("samples", "said"), [(120, "; what more images add is extrapolated. "), (32, ". ")])
def test_what_was_measured_of_the_scratch_network_is_told_from_what_is_extrapolated(samples, said):
    found = predictions().assign_attrs(samples=samples)
    pick, *_ = picks = chosen(found, 0.99)
    text = reason(pick, picks, found)
    assert f"Trained on 32 images here, it reached 0.970 on 500 that it never saw{said}" in text


def test_what_is_not_known_is_not_said():
    found = predictions().sel(protocol=["finetune"], depth=[3])
    (pick,) = chosen(found, None)
    text = reason(pick, (pick,), found)
    assert "CKA" not in text
    assert "at best" not in text.lower()
    assert "last layer" not in text


def test_where_nothing_is_cut_off_there_is_nothing_to_compare_with_uncut():
    found = predictions().sel(protocol=["truncate", "defrost"])
    (pick,) = chosen(found, None)
    assert (pick.protocol, pick.depth) == ("defrost", 2)
    text = reason(pick, (pick,), found)
    assert "last layer" not in text
    assert text.endswith("At best 0.600 after middle by truncate.")


@pytest.mark.parametrize(
    ("protocol", "depth", "words"),
    [
        ("truncate", 1, "its features frozen, a linear head trained on them"),
        ("reinit", 1, "what is kept frozen, what follows re-initialised and trained"),
        ("reinit", 3, "what is kept frozen, a new head trained on it"),
        ("finetune", 3, "fine-tuned with a new head"),
    ],
)
def test_what_is_done_is_said_in_words(protocol, depth, words):
    (pick,) = chosen(predictions(), None)
    assert how(replace(pick, protocol=protocol, depth=depth)) == f"cut after middle (depth {depth} of 3), {words}"


@pytest.mark.parametrize(
    ("depth", "words"),
    [(1, "frozen up to middle (depth 1 of 3), the rest fine-tuned"), (3, "all its stages frozen")],
)
def test_of_defrost_it_is_said_what_is_frozen(depth, words):
    (pick,) = chosen(predictions(), None)
    assert how(replace(pick, protocol="defrost", depth=depth)) == f"kept whole with a new head, {words}"
