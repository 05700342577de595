"""Ways that are left out, in words."""

import numpy as np
import xarray as xr

from transferscope.results.left_out import LeftOut, left_out, left_out_of, sentences


def test_ranges_of_depths_and_common_reasons_are_joined():
    reasons = {
        "truncate": {1: "", 2: ""},
        "reinit": {1: "no way", 2: "no way either", 3: "", 4: "", 5: "no way"},
        "finetune": {1: "frozen", 2: "frozen"},
        "scratch": {0: "frozen"},
    }
    entries = left_out_of("a", reasons)
    assert entries[0] == LeftOut("a", "reinit", (1, 2, 5), False, "no way")
    assert [(entry.protocol, entry.everywhere) for entry in entries[1:]] == [("finetune", True), ("scratch", True)]
    assert sentences([*entries, LeftOut("b", "reinit", (3,), False, "why")]) == {
        "a": "a cannot be adapted by reinit at depth 1-2, 5 (no way); nor by finetune, scratch (frozen)",
        "b": "b cannot be adapted by reinit at depth 3 (why)",
    }


def test_a_dataset_says_it_for_the_depths_that_a_source_has():
    reasons = np.array([[["", ""], ["x", ""]], [["", ""], ["x", "x"]]], dtype=object)
    scores = xr.Dataset(
        {
            "impossible": (("source", "protocol", "depth"), reasons),
            "layer": (("source", "depth"), np.array([["stem", ""], ["stem", "last"]], dtype=object)),
        },
        coords={"source": ["short", "long"], "protocol": ["truncate", "finetune"], "depth": [1, 2]},
    )
    assert left_out(scores) == (
        LeftOut("short", "finetune", (1,), True, "x"), LeftOut("long", "finetune", (1, 2), True, "x"),
    )  # fmt: skip
    assert left_out(scores.drop_vars("impossible")) == ()
    assert sentences(()) == {}
