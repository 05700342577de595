"""Pilots, and what they would bring, in everything that shows a ranking."""

import io
import json
from dataclasses import asdict, replace

import pytest
from rankings import make_ranking
from rich.console import Console

from transferscope.report import plot
from transferscope.report.html.page import fragment, page
from transferscope.report.terminal.ranking import print_ranking
from transferscope.results.pilots import Outlook, Pilot
from transferscope.results.ranking import load_ranking
from transferscope.results.reason import reason

PILOTS = (
    Pilot("birds", 2, "truncate", 120, 0.75, 0.0217, 31.4),
    Pilot("plain", 4, "finetune", 120, 0.6667, 0.0236, 65.2),
)
RIDGE = {"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.41, 0.42, 0.43]}


@pytest.fixture(scope="module")
def tried():
    return make_ranking(RIDGE, pilots=PILOTS)


@pytest.fixture(scope="module")
def untried():
    return make_ranking(RIDGE, outlook=Outlook(120, 0.112, 0.041))


def printed(ranking):
    console = Console(width=160, file=io.StringIO())
    print_ranking(ranking, console)
    return console.file.getvalue()


def test_the_outlook_is_one_sentence():
    assert Outlook(120, 0.112, 0.041).text == (
        "Pilots, real transfers in about 2 minutes (--pilots auto), would narrow ±11 to about ±4 points."
    )
    assert "about 30 seconds" in Outlook(30, 0.1, 0.05).text
    assert "about 1 minute " in Outlook(60, 0.1, 0.05).text
    assert Outlook(120, 0.041, 0.039).text == "", "nothing to speak of"


def test_the_terminal_shows_them(tried, untried):
    text = " ".join(printed(tried).split())
    for pilot in PILOTS:
        shown = f"{pilot.source} {pilot.protocol} {pilot.depth} 120 {pilot.accuracy:.3f}±{pilot.standard_error:.3f}"
        assert f"{shown} {pilot.seconds}" in text
    assert "Pilots: transfers that were really run" in text
    assert "--pilots" not in text
    text = " ".join(printed(untried).split())
    assert untried.outlook.text in text
    assert "really run" not in text
    assert "Evidence" not in text
    measured = replace(untried, scores=untried.scores.assign_attrs(evidence=12))
    assert "Evidence: 12 transfers that were measured before." in printed(measured)


def test_the_page_shows_them(tried, untried):
    html = page(tried, plot.figures(tried), plot.figures(tried, context="paper"))
    assert 'id="pilots"' in html
    assert "0.750 ± 0.022" in html
    assert "birds · truncate · depth 2, measured with 120 images: 0.750 ± 0.022" in html, "the pointer reads it"
    html = page(untried, {}, {})
    assert untried.outlook.text in html
    assert "<th" in html
    assert "± 0.022" not in html
    assert untried.outlook.text in fragment(untried)
    assert 'id="pilots"' not in page(make_ranking(RIDGE), {}, {})


def test_curves_have_a_star_for_each_at_its_share_of_the_depth(tried):
    ax = plot.depth_curves(tried)
    stars = [line for line in ax.get_lines() if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(2 / 3, 0.75), (1.0, 0.6667)]
    assert "measured by a pilot" in [text.get_text() for text in ax.get_legend().get_texts()]
    ax = plot.depth_curves(make_ranking(RIDGE))
    assert "measured by a pilot" not in [text.get_text() for text in ax.get_legend().get_texts()]


def test_files_keep_them_and_older_ones_have_none(tried, untried, tmp_path):
    content = json.loads(tried.to_json())
    assert content["pilots"] == [asdict(pilot) for pilot in PILOTS]
    assert content["pilot_outlook"] is None
    assert json.loads(untried.to_json())["pilot_outlook"] == asdict(untried.outlook)
    tried.save(tmp_path)
    assert load_ranking(tmp_path).pilots == PILOTS
    for name in ("pilots", "pilot_outlook"):
        del content[name]
    (tmp_path / "ranking.json").write_text(json.dumps(content))
    older = load_ranking(tmp_path)
    assert (older.pilots, older.outlook) == ((), None)


def test_reasons_name_those_of_the_source(tried):
    birds = next(pick for pick in tried.recommendations if pick.source == "birds")
    text = reason(birds, tried.recommendations, tried.scores, tried.pilots)
    assert " A pilot of it reached 0.750 ± 0.022 by truncate at depth 2 (120 images)." in text
    both = [PILOTS[0], replace(PILOTS[0], depth=3)]
    assert " Pilots of it reached 0.750 ± 0.022 by truncate at depth 2 (120 images) and 0.750" in reason(
        birds, tried.recommendations, tried.scores, both
    )
    assert "ilot" not in reason(birds, tried.recommendations, tried.scores)
