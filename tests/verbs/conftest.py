"""What several verbs are tested with: a cache for each test, and the digits of scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Give each test a cache of its own."""
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def digits():
    """Images (160, 8, 8) of four digits, and their labels."""
    data = load_digits(n_class=4)
    return (data.images[:160] * (255 / 16)).astype(np.uint8), data.target[:160]
