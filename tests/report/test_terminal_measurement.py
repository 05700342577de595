"""A measurement on the terminal: the best depths, what they cost, what failed, in lines that fit."""

import math

import pytest
from measurements import PICTURES, measurement, printed, run, words

from transferscope.runtime.failures import Failure

pytestmark = pytest.mark.bounds


def test_the_best_depths_are_printed_with_what_they_cost():
    found = measurement(
        run(0.5, depth=1), run(0.6, depth=2, seconds=12.345), run(0.8, depth=2, seed=1, seconds=12.345),
        run(0.65, "fne", 3, layer="upper 75%"), run(0.9, depth=3, size=20, seconds=1234.5, kwh=0.25),
    )  # fmt: skip
    text = printed(found)
    lines = words(text)
    assert ["5", "truncate", "2/3", "0.700", "±0.100", "12.3", "4e-07"] in lines
    assert ["fne", "(upper", "75%)", "3/3", "0.650", "2", "4e-07"] in lines
    assert ["20", "truncate", "3/3", "0.900", "1,234", "0.25"] in lines
    flat = " ".join(text.split())
    assert "in hindsight" in flat
    assert "mean over 1 to 2 seeds" in flat
    assert "always guessing the largest gives 0.250" in flat
    assert "CPU power is estimated." in flat
    assert ["20", "truncate", "blocks.2", "3/3", "0.900", "1,234", "0.25"] in words(printed(found, 120))


def test_with_several_sources_the_best_one_is_named():
    text = printed(measurement(run(0.5), run(0.6, source="[b]plain[/b]")))
    assert ["5", "truncate", "[b]plain[/b]", "1/3", "0.600", "2", "4e-07"] in words(text)
    assert "source and depth" in text


def test_lines_fit_into_80_columns_and_numbers_are_whole():
    name = "a-network-with-quite-a-long-name.in21k_ft_in1k"
    found = measurement(
        *(run(0.5, protocol, 12, depths=12, size=5000, seed=seed, seconds=123456.0, kwh=1.23e-5, source=source)
          for protocol in ("nearest_mean", "fne") for seed in (0, 1) for source in (name, f"{name}.more")),
    )  # fmt: skip
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 80
    for whole in ("5000", "nearest_mean", "12/12", "0.500 ±0.000", "123,456", "1.23e-05"):
        assert whole in text


def test_what_failed_is_listed_with_its_reason():
    runs = [run(None, protocol, seed=seed) for protocol in ("truncate", "svm") for seed in (0, 1)]
    text = printed(measurement(*runs, run(0.5, seed=2), failed=(Failure("gone", "No file."),)))
    assert "gone failed: No file." in text
    assert "birds: 4 runs failed (truncate, svm): out of memory" in text
    many = measurement(*(run(None, source=f"source{i}") for i in range(13)))
    assert "… and 3 more; all are in runs.csv." in printed(many)


def test_energy_that_was_not_measured_is_not_shown(tmp_path):
    found = measurement(run(0.5, kwh=math.nan, kgco2e=math.nan), energy="Energy was not measured.")
    assert "kWh" not in printed(found)
    assert "Energy was not measured.\nNo run's electricity is known, so there is no accuracy-by-energy.png." in printed(
        found
    )
    assert [path.name for path in found.save(tmp_path)][3:] == [*PICTURES[:3], "report.html"]
