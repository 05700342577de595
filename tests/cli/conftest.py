"""What every command of the tests starts from: a cache and a working folder of its own, and short references."""

import pytest
from image_folders import coloured_noise

from transferscope.protocols import scratch


@pytest.fixture
def home(tmp_path):
    """The cache; a file whose tests share one has a fixture of this name."""
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def quiet_house(quiet, tmp_path, home, monkeypatch):
    """Give each test a working folder of its own and the cache `home`, and put back what the command line changes."""
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scratch, "MIN_STEPS", 0)  # as few epochs as are asked for


@pytest.fixture
def unsaved(monkeypatch):
    """Write no files beside runs.csv: pictures take longer than all the rest."""
    for result in ("ranking.Ranking", "measurement.Measurement", "advice.Advice"):
        monkeypatch.setattr(f"transferscope.results.{result}.save", lambda _self, _folder: [])


@pytest.fixture
def target(tmp_path):
    """Three classes of coloured noise, in a folder whose name has spaces and other letters."""
    return coloured_noise(tmp_path / "my dätä 数据")
