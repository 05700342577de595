"""A transfer made on the spot, for the tests of everything that shows one."""

import math

import numpy as np

from transferscope.results.summary import TargetSummary
from transferscope.results.transfer import Expectation, Transfer
from transferscope.runtime.provenance import Provenance

MADE = Transfer(
    target=TargetSummary("shells", 120, 3, "0f" * 32), classes=("b|ue", "red", "never"), source="ours",
    protocol="reinit", depth=3, depths=8, layer="blocks.2", trained_on=90, held_out="the test split of the target",
    confusion=np.array([[8, 2, 0], [1, 9, 0], [4, 6, 0]]), balanced_accuracy=17 / 30, temperature=1.5,
    seconds={"features": 1.0, "training": 2.5}, kwh=1e-5, kgco2e=math.nan, energy="Energy is an estimate.",
    params=1234, identity="1d", expected=Expectation(0.6, (0.5, 0.7), 80, 2), hashes={"model.json": "aa"},
    provenance=Provenance({"seed": 0}, {"ours": "f0"}, {"torch": "2"}),
)  # fmt: skip
