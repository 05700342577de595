"""What a model says of images, as a table and as files."""

import json

import numpy as np
import pandas as pd
import pytest

from transferscope.errors import InputError
from transferscope.results.predictions import Predictions
from transferscope.runtime.failures import Failure

MADE = Predictions(
    ("a.png", "b, c.png"), ("cat", "label"), np.array([[0.75, 0.25], [0.125, 0.875]], dtype=np.float32),
    (Failure("broken.png", "the file is empty"),),
)  # fmt: skip


def test_the_table_has_a_row_an_image_and_a_column_a_class():
    assert MADE.labels == ("cat", "label")
    assert len(MADE) == 2
    assert MADE.table.to_dict("list") == {
        "path": ["a.png", "b, c.png"], "label": ["cat", "label"], "probability": [0.75, 0.875],
        "cat": [0.75, 0.125], "class label": [0.25, 0.875],
    }  # fmt: skip


def test_files(tmp_path):
    path = MADE.save(tmp_path / "deep" / "out.csv")
    pd.testing.assert_frame_equal(pd.read_csv(path), MADE.table, check_dtype=False)
    record = json.loads(MADE.to_json())
    assert record["predictions"][1] == {"path": "b, c.png", "label": "label", "probabilities": [0.125, 0.875]}
    assert record["unreadable"] == [{"path": "broken.png", "error": "the file is empty"}]


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*choose another file with -o"):
        MADE.save(tmp_path / "file" / "out.csv")
