"""Why a recommendation is made: the words, and that their figures are those that it was made from."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from transferscope.prediction.selection import ScratchCandidate, recommend
from transferscope.results.reason import reason
from transferscope.results.recommendation import how

PROTOCOLS = ["truncate", "reinit", "finetune"]


def predictions(best=0.8):
    """One source of three stages; its best is `best`, by fine-tuning after two of them."""
    expected = np.array([[[0.3, 0.4, 0.5], [0.6, 0.5, best], [0.4, 0.2, 0.7]]])
    cuts = {"layer": [["stem", "middle", "top"]], "params": [[1, 2, 3]], "flops": [[10, 20, 30]]}
    scores = {"ridge": [[0.25, 0.625, 0.5]], "linear_cka_to_scratch": [[0.9, 0.375, np.nan]]}
    return xr.Dataset(
        {name: (("source", "depth"), values) for name, values in (cuts | scores).items()}
        | {"expected_accuracy": (("source", "depth", "protocol"), expected)}
        | {name: (("source", "depth", "protocol"), expected + by) for name, by in (("lower", -0.1), ("upper", 0.1))},
        coords={"source": ["net"], "depth": [1, 2, 3], "protocol": PROTOCOLS},
        attrs={"samples": 120, "classes": 6, "n_samples": 40, "calibrated": 1, "contrast": 0.3, "scratch_growth": 0.0},
    )


def ranked(scratch, **options):
    found = predictions(**options)
    candidate = None if scratch is None else ScratchCandidate("compact", scratch, 1000, 4, 7, 70)
    picks = recommend(found, (), candidate)
    return {pick.source: reason(pick, picks, found) for pick in picks}


def test_a_reason_names_the_figures_that_it_is_drawn_from():
    assert ranked(0.2)["net"] == (
        "Expected to reach 0.800 [0.700, 0.900] when trained on 120 images (20 a class), cut after middle (depth 2 of "
        "3), what follows re-initialised, all of it fine-tuned. A linear head on its frozen features there gets 0.625 "
        "of the 40 images looked at right, each left out (similarity to the scratch network: CKA 0.38). Kept to its "
        "last layer, 0.700 is expected; at best 0.600 after middle by truncate and 0.500 after middle by reinit. It is "
        "better than training from scratch (0.200)."
    )


@pytest.mark.parametrize(
    ("scratch", "said"),
    [
        (0.2, "It is better than training from scratch (0.200)."),
        (
            0.79,
            "Whether that is better than training from scratch is open (0.790). It cannot be told apart from scratch.",
        ),
        (0.99, "It is no better than training from scratch (0.990)."),
    ],
)
def test_it_says_how_it_stands_against_training_from_scratch(scratch, said):
    assert ranked(scratch)["net"].endswith(said)


def test_the_scratch_network_has_a_reason_of_its_own():
    assert "It is expected to be better than net." in ranked(0.99)["scratch"]
    assert "It cannot be told apart from net." in ranked(0.79)["scratch"]
    assert "scratch" not in ranked(None)["net"].replace("scratch network", "")


def test_an_accuracy_for_more_images_than_were_looked_at_is_not_called_measured():
    assert (
        "on images that it never saw when it was trained on 40; what more of them add is foretold."
        in ranked(0.99)["scratch"]
    )


def test_what_is_not_known_is_not_said():
    found = predictions().sel(protocol=["finetune"], depth=[3])
    (pick,) = recommend(found, (), None)
    text = reason(pick, (pick,), found)
    assert "CKA" not in text
    assert "at best" not in text.lower()
    assert "last layer" not in text


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
    (pick,) = recommend(predictions(), (), None)
    assert how(replace(pick, protocol=protocol, depth=depth)) == f"cut after middle (depth {depth} of 3), {words}"
