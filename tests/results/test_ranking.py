"""The ranking as people meet it: files that load again, a table, a verdict, pictures."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from beliefs import SPREAD
from matplotlib.figure import Figure
from PIL import Image
from rankings import AWKWARD, NAMES, make_ranking
from result_folders import visible
from rich.console import Console

from transferscope.errors import InputError
from transferscope.report.terminal.ranking import print_ranking
from transferscope.results.files import prepare_folder
from transferscope.results.ranking import load_ranking
from transferscope.results.summary import Reference, TargetSummary
from transferscope.runtime import filesets
from transferscope.runtime.provenance import Provenance

pytestmark = pytest.mark.bounds

PICTURES = {f"{name}.png" for name in ("ranking", "source_depth", "depth_curves", "pareto", "similarity")}
FILES = {"ranking.json", "ranking.csv", "cuts.csv", "scores.nc", "report.html", *PICTURES}
MADE = Provenance(
    {"seed": 3, "shots": None, "recipe": {"epochs": 40}}, {"birds": "ab"}, {"torch": "2"}, "transferscope rank -o here"
)


@pytest.fixture(scope="module")
def ranking():
    return make_ranking({"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.41, 0.42, 0.43]}, provenance=MADE)


@pytest.fixture(scope="module")
def saved_once(ranking, tmp_path_factory):
    """Save `ranking`; fail where a figure is made through pyplot or its current one is used."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("pyplot was used")

    folder = tmp_path_factory.mktemp("results") / "new" / "Ergebnisse für später"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("figure", "subplots", "gca", "gcf", "sca", "show"):
            patch.setattr(plt, name, refuse)
        return ranking.save(folder)


@pytest.fixture
def saved(saved_once, tmp_path):
    """Return a folder of one's own into which `ranking` was saved."""
    return Path(shutil.copytree(saved_once[0].parent, tmp_path / "saved"))


@pytest.fixture
def drawn_once(saved_once, monkeypatch):
    """Save any ranking with the pictures and the page of `ranking`: drawing takes longest, and others test it."""
    drawn = {path.name: path.read_bytes() for path in saved_once if path.suffix in (".png", ".html")}
    monkeypatch.setattr("transferscope.results.saving._drawn", lambda _result: drawn)


def same(x, y):
    """Whether two recommendations agree up to the six decimals of the file; NaN equals NaN."""
    left, right = (
        {**vars(pick), **pick.scores, "lower": pick.interval[0], "upper": pick.interval[1]}
        | {**pick.baselines, "scores": 0, "interval": 0, "baselines": 0}
        | {name: " ".join(getattr(pick, name)) for name in ("tied_with", "level_with")}
        for pick in (x, y)
    )
    return left == pytest.approx(right, abs=5e-7, nan_ok=True)


def printed(ranking, width=120, **options):
    console = Console(width=width, file=io.StringIO())
    print_ranking(ranking, console, **options)
    return console.file.getvalue()


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_json_has_the_documented_keys_in_order(ranking):
    content = json.loads(ranking.to_json())
    assert list(content) == [
        "schema_version", "target", "metric", "expected_for", "reference", "ranking", "pilots", "pilot_outlook",
        "left_out", "failed", "agreement", "provenance",
    ]  # fmt: skip
    assert content["expected_for"] == 2000
    assert content["schema_version"] == 1
    assert content["target"] == {"name": "shells", "samples": 1000, "classes": 6, "hash": "0f" * 32}
    assert content["failed"] == [{"source": "gone", "error": "No checkpoint at gone.pt."}]
    assert content["reference"]["held_out_accuracy"] == 0.5
    first = content["ranking"][0]
    assert list(first) == [
        "rank", "source", "layer", "depth", "depths", "protocol", "expected_accuracy", "interval", "params", "flops",
        "scores", "baselines", "beats_next", "tied_with", "level_with", "probability_best", "reason",
    ]  # fmt: skip
    assert first["beats_next"] > 0.99
    assert first["tied_with"] == first["level_with"] == []
    assert sum(row["probability_best"] for row in content["ranking"]) == pytest.approx(1, abs=1e-6)
    assert first["probability_best"] == pytest.approx(first["beats_next"], abs=0.01)  # the third is far behind
    assert first["baselines"] == {"network_params": 3000, "depth_fraction": 0.666667}
    assert {key: first[key] for key in ("rank", "source", "layer", "depth", "depths", "protocol")} == {
        "rank": 1, "source": "birds", "layer": "blocks.1", "depth": 2, "depths": 3, "protocol": "truncate",
    }  # fmt: skip
    assert (first["expected_accuracy"], first["params"], first["flops"]) == (0.7, 2000, 180000)
    lower, upper = first["interval"]
    assert lower < 0.7 < upper
    assert set(first["scores"]) == set(NAMES)
    scratch = content["ranking"][1]
    assert (scratch["source"], scratch["layer"], scratch["depth"], scratch["scores"]) == ("scratch", None, 0, {})


def test_json_is_strict_where_scores_are_not_finite():
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    odd = make_ranking({"birds": [0.7]})
    pick = replace(odd.best, scores={"logme": math.inf, "svcca_to_scratch": math.nan, "hscore": -math.inf})
    text = replace(odd, recommendations=(pick,)).to_json()
    content = json.loads(text, parse_constant=refuse)
    assert content["ranking"][0]["scores"] == {"logme": None, "svcca_to_scratch": None, "hscore": None}


def test_equal_rankings_give_equal_bytes(ranking):
    other = replace(MADE, command="transferscope rank -o there")
    again = make_ranking({"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.41, 0.42, 0.43]}, provenance=other)
    assert again.to_json() == ranking.to_json()
    assert again.to_csv() == ranking.to_csv()
    assert replace(again, timings={"data": 3.0}).to_json() == ranking.to_json()


def test_the_last_bits_of_a_reduction_do_not_show():
    one = make_ranking({"birds": [0.7]})
    variants = [
        replace(one, recommendations=(replace(one.best, scores={"logme": 0.25 + noise, "hscore": noise}),)).to_json()
        for noise in (1e-12, -1e-12)
    ]
    assert variants[0] == variants[1]


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_csv_holds_the_numbers_of_the_json(ranking):
    table = pd.read_csv(io.StringIO(ranking.to_csv()))
    rows = json.loads(ranking.to_json())["ranking"]
    assert table["rank"].tolist() == [1, 2, 3]
    for i, row in enumerate(rows):
        line = table.iloc[i]
        for key in ("source", "depth", "depths", "protocol", "params", "flops"):
            assert line[key] == row[key]
        for key, value in {**row["scores"], "expected_accuracy": row["expected_accuracy"]}.items():
            assert line[key] == pytest.approx(value, abs=1e-6)
        assert [line["lower"], line["upper"]] == pytest.approx(row["interval"], abs=1e-6)
        assert line["probability_best"] == pytest.approx(row["probability_best"], abs=1e-6)
    scratch = table[table["protocol"] == "scratch"].iloc[0]
    assert scratch[["layer", "logme", "accuracy_at_last_layer"]].isna().all()
    assert table["accuracy_at_last_layer"].dropna().tolist() == [0.557, 0.43]


def test_csv_quotes_names_with_commas_and_quotes():
    awkward = 'a,"b";c'
    assert pd.read_csv(io.StringIO(make_ranking({awkward: [0.9]}).to_csv()))["source"][0] == awkward


# --- files --------------------------------------------------------------------------------------------------------


def test_what_is_saved_loads_again(ranking, saved_once):
    assert {path.name for path in saved_once} == FILES
    assert visible(saved_once[0].parent) == FILES
    loaded = load_ranking(saved_once[0].parent)
    assert (loaded.target, loaded.reference, loaded.failed) == (ranking.target, ranking.reference, ranking.failed)
    assert all(map(same, loaded.recommendations, ranking.recommendations))
    assert len(loaded.recommendations) == len(ranking.recommendations)
    xr.testing.assert_identical(loaded.scores, ranking.scores)
    # The command is not in the files: equal runs give equal ones wherever they go.
    assert loaded.provenance == ranking.provenance == MADE
    assert (loaded.provenance.command, MADE.command) == ("", "transferscope rank -o here")
    assert loaded.to_json() == ranking.to_json()
    assert loaded.to_csv() == ranking.to_csv()
    assert loaded.verdict == ranking.verdict
    assert printed(loaded) == printed(ranking)


@pytest.mark.usefixtures("undrawn")
def test_a_ranking_without_reference_or_with_undefined_scores_loads_again(tmp_path):
    bare = make_ranking({"birds": [0.7]}, scratch=None, reference=None, failed=())
    pick = replace(bare.best, scores={**bare.best.scores, "linear_cka_to_scratch": math.nan})
    bare = replace(bare, recommendations=(pick,))
    bare.save(tmp_path)
    loaded = load_ranking(tmp_path)
    assert (loaded.reference, loaded.failed) == (None, ())
    assert same(loaded.best, bare.best)
    assert "nan" in printed(loaded)


@pytest.mark.usefixtures("drawn_once")
def test_saving_again_replaces_and_leaves_other_files_alone(ranking, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    make_ranking({"other": [0.9]}).save(tmp_path)
    ranking.save(tmp_path)
    assert load_ranking(tmp_path).best.source == "birds"
    assert visible(tmp_path) == FILES | {"mine.txt"}


def test_a_failing_picture_leaves_the_folder_as_it_was(ranking, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ranking.save(tmp_path)
    assert visible(tmp_path) == set()


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("victim", ["ranking.json", "pareto.png", "report.html"])
def test_an_interrupted_write_leaves_no_part_of_a_file(saved, monkeypatch, victim):
    old = {path.name: path.read_bytes() for path in saved.iterdir()}
    write = Path.write_bytes

    def half(path, data):
        if victim in path.name:
            write(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        make_ranking({"new": [0.9]}).save(saved)
    assert visible(saved) == FILES
    assert (saved / victim).read_bytes() == old[victim]


@pytest.mark.usefixtures("drawn_once")
def test_a_disk_that_fills_up_is_an_input_error(ranking, tmp_path, monkeypatch):
    replace_file = filesets.os.replace

    def full(source, target):
        if str(target).endswith(".nc"):
            raise OSError(28, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(filesets.os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        ranking.save(tmp_path)
    assert visible(tmp_path) == set()


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("below", [".", "deep/er"])
def test_a_file_in_the_way_of_the_folder_is_an_input_error(ranking, tmp_path, below):
    blocked = tmp_path / "results"
    blocked.write_text("a file")
    for attempt in (ranking.save, prepare_folder):
        with pytest.raises(InputError, match="output folder to be writable"):
            attempt(blocked / below)
    assert blocked.read_text() == "a file"


def test_preparing_a_folder_leaves_a_mark_alone(tmp_path):
    folder = prepare_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert [path.name for path in folder.iterdir()] == [".transferscope"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ranking.json", None), ("ranking.json", "{"), ("ranking.json", "[]"), ("ranking.json", "{}"),
        ("ranking.json", '{"schema_version": 1}'), ("scores.nc", None), ("scores.nc", "not HDF5"),
    ],
)  # fmt: skip
def test_a_folder_without_a_ranking_is_an_input_error(saved, name, content):
    (saved / name).unlink()
    if content is not None:
        (saved / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(str(saved))):
        load_ranking(saved)


def test_another_schema_version_is_named(saved):
    path = saved / "ranking.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(InputError, match=r"schema_version 1 but got 9; rank again"):
        load_ranking(saved)


# --- names that look like something else --------------------------------------------------------------------------


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_survive_the_table(name):
    ranking = make_ranking({name: [0.6, 0.7], "other": [0.69]}, target=TargetSummary(name, 10, 2, "00"))
    # In the verdict, in the table and as the name of the target; in the tables of costs and of scores.
    assert printed(ranking, 200).count(name) == 3
    assert printed(ranking, 200, detailed=True).count(name) == 5


def test_awkward_names_survive_the_files(tmp_path):
    ranking = make_ranking({name: [0.3, 0.7 - i / 100] for i, name in enumerate(AWKWARD)})
    replace(ranking, target=TargetSummary(AWKWARD[0], 10, 2, "00")).save(tmp_path)
    assert AWKWARD[0] in (tmp_path / "ranking.json").read_text(encoding="utf-8")
    loaded = load_ranking(tmp_path)
    assert [pick.source for pick in loaded.recommendations if pick.layer] == AWKWARD
    assert loaded.scores["source"].to_numpy().tolist() == AWKWARD
    assert pd.read_csv(tmp_path / "ranking.csv")["source"].tolist()[:9] == AWKWARD
    assert loaded.target.name == AWKWARD[0]


# --- table and verdict --------------------------------------------------------------------------------------------


def test_the_table_shows_every_candidate_with_its_numbers(ranking):
    lines = printed(ranking, 160).splitlines()
    (birds,) = (line.split() for line in lines if line.startswith("1 "))
    names = ("linear_cka_to_scratch", "svcca_to_scratch", "logme", "hscore")
    scores = [f"{ranking.best.scores[name]:.3f}" for name in names]
    lower, upper = ranking.best.interval
    best = f"{ranking.best.probability_best:.2f}"
    assert birds == [
        "1", "birds", "truncate", "blocks.1", "2/3", "0.700", f"{lower:.3f}-{upper:.3f}", "0.557", best, "180k", "2k",
        *scores,
    ]  # fmt: skip
    (scratch,) = (line.split() for line in lines if line.startswith("2 "))
    assert scratch[:4] == ["2", "scratch", "scratch", "0.500"]
    assert scratch[-2:] == ["5M", "77k"]
    text = " ".join(" ".join(lines).split())
    assert "best: probability that it is the best of all" in text
    assert "1000 images, 6 classes of shells" in text
    assert "680 images for 31 epochs (early), accuracy 0.500 on 200 held-out images" in text


@pytest.mark.parametrize("width", [80, 100, 120, 140])
def test_the_table_fits_and_keeps_its_numbers(width):
    ranking = make_ranking({"mobilenetv2-imagenet": [0.123, 0.456]}, scratch=0.47)
    lines = printed(ranking, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line for line in lines if line.lstrip().startswith("1 ")]
    assert len(rows) == (1 if width >= 140 else 2)
    pick = ranking.best
    lower, upper = pick.interval
    for number in ("truncate", "2/2", "0.456", f"{lower:.3f}-{upper:.3f}", "blocks.1"):
        assert number in rows[0]
    for number in ("180k", "2k", *(f"{score:.3f}" for name, score in pick.scores.items() if name != "ridge")):
        assert number in rows[-1]


def test_a_reference_that_was_handed_in_is_said_to_be(ranking):
    given = replace(ranking, reference=Reference("mine.pt", None, 0, 0, 0, "given"))
    assert "Reference: mine.pt, handed in" in printed(given, 200)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0"), (999, "999"), (1000, "1k"), (48_123_456, "48.1M"), (999_499, "999k"), (999_950, "1M"), (10**15, "1P")],
)
def test_sizes_have_three_digits_and_a_unit(number, expected):
    pick = replace(make_ranking({"birds": [0.7]}).best, flops=number)
    ranking = make_ranking({"birds": [0.7]}, recommendations=(pick,))
    (line,) = (line for line in printed(ranking, 160).splitlines() if line.startswith("1 "))
    assert line.split()[9] == expected


def test_the_verdict_on_an_inner_cut_names_what_the_last_layer_gives():
    ranking = make_ranking({"birds": [0.54, 0.7, 0.557]})
    lower, upper = ranking.best.interval
    assert ranking.verdict == (
        "Start from birds, cut after blocks.1 (depth 2 of 3), its features frozen, a linear head trained on them: "
        f"expected accuracy 0.700 [{lower:.3f}, {upper:.3f}], against 0.557 when it is kept to its last layer. "
        "It beats the next, scratch, with probability over 0.99."
    )


def test_the_verdict_on_the_last_layer_compares_with_nothing():
    verdict = make_ranking({"birds": [0.54, 0.7]}, scratch=None).verdict
    assert "(depth 2 of 2)" in verdict
    assert verdict.endswith("].")
    assert "against" not in verdict


def test_the_verdict_says_when_nothing_beats_scratch():
    verdict = make_ranking({"birds": [0.2]}, scratch=0.9).verdict
    assert verdict.startswith("Train from scratch: no source is expected to beat it (accuracy 0.900 [")
    assert verdict.endswith("It beats the next, birds, with probability over 0.99.")


def test_the_verdict_says_by_what_scratch_comes_first():
    ranking = make_ranking({"birds": [0.9]}, scratch=0.7)
    picks = tuple(sorted(ranking.recommendations, key=lambda pick: pick.expected_accuracy))
    scores = ranking.scores.assign_attrs(objective="latency")
    verdict = replace(ranking, recommendations=picks, scores=scores).verdict
    assert verdict.startswith("Train from scratch: it comes first by latency (accuracy 0.700 [")


def test_the_verdict_lists_what_is_tied_with_the_first():
    ranking = make_ranking({"birds": [0.7], "insects": [0.71], "far": [0.3]}, scratch=0.69)
    # The difference of the two logits is Gaussian with the standard deviation `SPREAD`.
    apart = (math.log(0.71 / 0.29) - math.log(0.7 / 0.3)) / SPREAD
    assert ranking.best.beats_next == pytest.approx((1 + math.erf(apart / math.sqrt(2))) / 2)
    assert ranking.verdict.endswith(
        "Tied with birds, scratch: which is better is not known from these images. It is the best of all with "
        f"probability {ranking.best.probability_best:.2f}. So it may be no better than training from scratch."
    )
    lines = printed(ranking).splitlines()
    assert [line.split()[:2] for line in lines if line.lstrip()[:1].isdigit()][:4] == [
        ["1", "insects"], ["2=", "birds"], ["3=", "scratch"], ["4", "far"],
    ]  # fmt: skip
    assert "=: tied with the first (either is better with a probability of at least 0.1)." in printed(ranking, 400)


def test_the_verdict_tells_what_is_level_from_what_is_unknown():
    ranking = make_ranking({"birds": [0.701], "insects": [0.7]}, scratch=0.4)
    (best, *others) = ranking.recommendations
    picks = (replace(best, tied_with=("insects", "owls"), level_with=("insects",), probability_best=0.375), *others)
    assert replace(ranking, recommendations=picks).caveats == (
        "Level with insects: the choice hardly matters for accuracy. Tied with owls: which is better is not known from "
        "these images. It is the best of all with probability 0.38."
    )


def test_what_is_worth_its_flops_stands_in_a_table_of_its_own():
    ranking = make_ranking({"birds": [0.5, 0.4, 0.7], "insects": [0.6, 0.65, 0.3]}, scratch=0.64)
    front = ranking.pareto
    # Scratch costs more than both at depth 3, and 0.5 at depth 1 is beaten at the same price.
    assert list(zip(front["source"], front["depth"], front["expected_accuracy"], strict=True)) == [
        ("insects", 1, 0.6), ("insects", 2, 0.65), ("birds", 3, 0.7),
    ]  # fmt: skip
    assert "worth its FLOPs" not in printed(ranking)
    assert "worth its FLOPs" in printed(ranking, costs=True)


@pytest.mark.parametrize("known", [0, 2])
def test_unknown_flops_are_said_to_be_unknown_and_worth_nothing(tmp_path, known):
    ranking = make_ranking({"birds": [0.5, 0.6, 0.7], "insects": [0.6, 0.65, 0.3]}, scratch=0.64)
    flops = ranking.scores["flops"].astype(float)
    picks = tuple(
        pick if pick.source == "insects" and known else replace(pick, flops=math.nan)
        for pick in ranking.recommendations
    )
    ranking = replace(
        ranking,
        recommendations=picks,
        scores=ranking.scores.assign(flops=flops.where((flops["source"] == "insects") & (flops["depth"] <= known))),
    )
    assert set(ranking.pareto["source"]) == ({"insects"} if known else set())
    assert ranking.cuts["flops"].isna().sum() == len(ranking.cuts) - known
    assert "unknown" in printed(ranking, costs=True)
    ranking.save(tmp_path)
    rows = json.loads((tmp_path / "ranking.json").read_text())["ranking"]
    assert [row["flops"] is None for row in rows] == [math.isnan(pick.flops) for pick in picks]
    assert all(map(same, load_ranking(tmp_path).recommendations, picks))
    assert ">unknown<" in (tmp_path / "report.html").read_text()
    assert "unknown" in next(pick for pick in picks if math.isnan(pick.flops))._repr_html_()


# --- scores on request, beside the baselines ----------------------------------------------------------------------


def test_every_score_stands_beside_the_baselines_where_it_was_asked_for():
    few = {"birds": [0.54, 0.7, 0.6], "insects": [0.6, 0.65, 0.5], "far": [0.3, 0.2, 0.1]}
    plain = make_ranking(few)
    assert "network_params" not in printed(plain)
    detailed = printed(plain, detailed=True)
    assert "beats next" in detailed
    asked = make_ranking(few, more={"parc": 0.125}, errors={"parc": 0.0625, "logme": 0.5}, baselines={"preference": 2})
    text = printed(asked)
    assert max(map(len, text.splitlines())) <= 120
    for expected in ("0.125±0.062", f"{asked.best.scores['logme']:.3f}±0.500", "2k", "preference (baseline)"):
        assert expected in text
    (line,) = (line.split() for line in text.splitlines() if line.startswith("logme  "))
    found = asked.agreement
    assert line == ["logme", f"{found.over_sources['logme']:.3f}", f"{found.over_depths['logme']:.3f}"]
    assert "not with transfers that were run" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_details_fit_the_terminal(width):
    names = ("transrate", "nleep", "gbc", "parc", "sfda", "knn", "kernel_ridge")
    ranking = make_ranking(
        {"mobilenetv2-imagenet": [0.1, 0.4], "b": [0.2, 0.3]},
        more=dict.fromkeys(names, -0.5), errors=dict.fromkeys(names, 0.25), baselines={"source_accuracy": math.nan},
    )  # fmt: skip
    text = printed(ranking, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("-0.500±0.250") == 2 * len(names)
    assert "is unknown with fewer than 3" in " ".join(text.split())


def test_a_file_from_before_there_were_ties_and_baselines_loads(saved):
    path = saved / "ranking.json"
    content = json.loads(path.read_text())
    del content["agreement"]
    for row in content["ranking"]:
        for key in ("baselines", "beats_next", "tied_with", "level_with", "probability_best"):
            del row[key]
    path.write_text(json.dumps(content))
    loaded = load_ranking(saved)
    assert loaded.best.tied_with == loaded.best.level_with == ()
    assert loaded.best.probability_best is None
    assert "robab" not in loaded.verdict
    # Every view does without.
    assert "best" not in printed(loaded, 160).split("uncut")[1].split("\n")[0]
    assert "probability" not in loaded._repr_html_()
    assert {path.name for path in loaded.save(saved / "again")} == FILES


def test_what_this_version_does_not_know_in_a_file_is_one_sentence(saved):
    path = saved / "ranking.json"
    content = json.loads(path.read_text())
    content["ranking"][0]["news"] = 1
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"as `rank -o` writes them, but .* does not \(.*'news'\)$"):
        load_ranking(saved)


@pytest.mark.usefixtures("undrawn")
def test_one_that_keeps_the_whole_network_is_compared_with_no_uncut_one(tmp_path):
    frozen = {"birds": [0.6, 0.8, 0.75]}
    ranking = make_ranking({"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.5]}, others={"defrost": frozen})
    assert (ranking.best.protocol, ranking.best.depth) == ("defrost", 2)
    assert ranking.answer.startswith(
        "Start from birds, kept whole with a new head, frozen up to blocks.1 (depth 2 of 3), the rest fine-tuned: "
        "expected accuracy 0.800 ["
    )
    assert "against" not in ranking.answer
    assert math.isnan(ranking.table.loc[1, "accuracy_at_last_layer"])
    (birds,) = (line.split() for line in printed(ranking, 160).splitlines() if line.startswith("1 "))
    best = f"{ranking.best.probability_best:.2f}"
    # All of the network comes out, and is paid for.
    assert birds[2:10] == ["defrost", "blocks.1", "2/3", "0.800", birds[6], best, "270k", "3k"]
    assert "defrost: nothing is cut off, stages up to there are frozen." in printed(ranking, 400)
    ranking.save(tmp_path)
    assert load_ranking(tmp_path).to_json() == ranking.to_json()
    cuts = pd.read_csv(tmp_path / "cuts.csv")
    assert cuts[cuts["protocol"] == "defrost"]["expected_accuracy"].tolist() == [0.8, 0.75, 0.6]


def test_the_table_of_a_notebook_has_a_row_per_candidate(ranking):
    table = ranking.table
    assert table.index.tolist() == [1, 2, 3]
    assert table["source"].tolist() == ["birds", "scratch", "plain"]
    assert list(table.columns) == [
        "source", "layer", "depth", "depths", "protocol", "expected_accuracy", "params", "flops", "beats_next",
        "tied_with", "level_with", "probability_best", "lower", "upper", "accuracy_at_last_layer", *NAMES,
        "network_params", "depth_fraction",
    ]  # fmt: skip
    assert table.loc[1, "accuracy_at_last_layer"] == 0.557
    assert math.isnan(table.loc[2, "accuracy_at_last_layer"])


# --- pictures -----------------------------------------------------------------------------------------------------


def test_saved_pictures_open_and_are_not_blank(saved):
    for name in ("depth_curves.png", "similarity.png"):
        with Image.open(saved / name) as image:
            image.load()
            assert min(image.size) > 300
            pixels = np.asarray(image.convert("L"))
        assert 0.01 < (pixels < 250).mean() < 0.99


def test_without_a_source_in_the_ranking_there_are_no_pictures_of_sources(tmp_path):
    ranking = make_ranking({"birds": [0.2]}, scratch=0.9)
    only = replace(ranking, recommendations=ranking.recommendations[:1])
    assert {path.name for path in only.save(tmp_path)} == FILES - {"similarity.png", "source_depth.png"}
