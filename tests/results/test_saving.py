"""Views that were drawn before come from the cache; nothing that they show may then be another."""

from dataclasses import replace

import matplotlib as mpl
import pytest
from rankings import make_ranking

from transferscope.results import saving
from transferscope.results.ranking import Ranking
from transferscope.runtime.store import Store


@pytest.fixture
def drawn(monkeypatch):
    """Count what is drawn, which is nothing but a number here."""
    count = []
    monkeypatch.setattr(saving, "_drawn", lambda result: count.append(1) or {"a.png": bytes([len(count)]), "b": b""})
    return count


@pytest.fixture
def ranking():
    return make_ranking({"a": [0.5, 0.7], "b": [0.6, 0.4]})


def test_equal_results_are_drawn_once(drawn, ranking, tmp_path):
    with saving.kept_views(Store(tmp_path)):
        first = saving.views(ranking)
        assert saving.views(replace(ranking)) == first == {"a.png": b"\x01", "b": b""}
    assert len(drawn) == 1


def test_only_where_it_was_asked_for(drawn, ranking, tmp_path):
    with saving.kept_views(Store(tmp_path)):
        saving.views(object())
        saving.views(object())
    saving.views(ranking)
    saving.views(ranking)
    assert len(drawn) == 4


@pytest.mark.parametrize("change", ["warnings", "scores", "attributes", "style", "versions"])
def test_another_result_or_style_is_drawn_again(drawn, ranking, tmp_path, monkeypatch, change):
    with saving.kept_views(Store(tmp_path)):
        saving.views(ranking)
        if change == "warnings":
            ranking = replace(ranking, warnings=("something odd",))
        elif change == "scores":
            scores = ranking.scores.copy(deep=True)
            scores["logme"][0, 0] += 1e-12
            ranking = replace(ranking, scores=scores)
        elif change == "attributes":
            ranking = replace(ranking, scores=ranking.scores.assign_attrs(largest_class=0.123))
        elif change == "versions":
            monkeypatch.setattr(saving, "versions", lambda: {"matplotlib": "0"})
        with mpl.rc_context({"font.size": 31} if change == "style" else {}):
            saving.views(ranking)
    assert len(drawn) == 2


def test_a_file_of_settings_decides_where_matplotlib_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.delitem(saving.sys.modules, "matplotlib")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    before = saving._style()
    (tmp_path / "matplotlibrc").write_text("font.size: 31")
    assert len(saving._style()) == len(before) + 1


def test_a_ranking_says_what_it_is(ranking):
    assert isinstance(ranking, Ranking)
    assert ranking.identity() == replace(ranking).identity()
