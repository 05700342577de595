"""The pages of all results but rankings: what they hold, by any name; and that every page stays small."""

import ast
import inspect
import re
import shlex
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import xarray as xr
from advices import ADVICE
from comparisons import comparison, similarity
from matplotlib.figure import Figure
from measurements import SETTINGS, measured_grid, measurement, run
from parameter_transfers import result, stuck_transfers, transfer, transferred_grid
from rankings import AWKWARD, make_ranking

import transferscope as ts
from transferscope.cli.rank import command as rank_command
from transferscope.cli.transfer import command as transfer_command
from transferscope.report import plot, writers
from transferscope.report.html import advice as advice_page
from transferscope.report.html import comparison as comparison_page
from transferscope.report.html import measurement as measurement_page
from transferscope.report.html import parameters as parameters_page
from transferscope.report.html.page import page as ranking_page
from transferscope.report.html.parts import MOST_ROWS, Column, Section, Table, numbers
from transferscope.results.pilots import Pilot
from transferscope.results.summary import Reference, TargetSummary
from transferscope.runtime.failures import Failure
from transferscope.runtime.provenance import Provenance, versions

EVIL = "<script>document.title='run'</script><b>\"'&amp;"
LIMIT = 5_000_000


def text_of(html):
    """Return the words of a page, as they are read."""
    html = html.decode() if isinstance(html, bytes) else html
    body = html.split("<main>")[1].split("</main>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def bare(found):
    """Return the page of a result without its pictures, which take the time."""
    pages = {
        "Advice": lambda: advice_page.page(found, {}, {}), "Comparison": lambda: comparison_page.page(found, {}, {}),
        "Measurement": lambda: measurement_page.page(found, {}),
        "ParameterTransfer": lambda: parameters_page.page(found, {}),
    }  # fmt: skip
    return pages[type(found).__name__]().render()


def rows_of(html, section):
    return html.decode().split(f'<section id="{section}">')[1].split("</section>")[0].count("<tr") - 1


def compared(x="birds", y="plain", **more):
    return comparison(similarity([[0.9, 0.2, 0.3], [0.1, 0.5, 0.4]], **more), x=x, y=y)


# --- what they hold -----------------------------------------------------------------------------------------------


def test_advice_says_what_to_do_and_what_each_way_costs():
    found = replace(
        ADVICE, hint="Pilots would help.", left_out=(Failure("reinit", "cannot be cut"),),
        failed=(Failure("other", "no file"),), pilots=(Pilot("net", 3, "truncate", 40, 0.75, 0.02, 31.4),),
    )  # fmt: skip
    html = bare(found)
    text = text_of(html)
    for expected in (
        found.verdict, found.turning, "Pilots would help.", "Left out: partial fine-tuning: cannot be cut",
        "other failed: no file", "top-tuning * toptuning blocks.[red]2 3/7 0.790 0.690–0.840 2 2e-06 1e-06 21",
        "Advised (*): the quickest way", "0.750 ± 0.020", "Energy is an estimate.", "SHA-256 abc",
        f"torch {versions()['torch']}",
    ):  # fmt: skip
        assert expected in text
    assert rows_of(html, "ways") == len(ADVICE.ways)
    assert html.decode().count('class="ts-marked"') == 1


def test_a_measurement_says_what_was_best_and_what_failed():
    html = bare(measured_grid())
    text = text_of(html)
    for expected in (
        "The most accurate transfer: birds by truncate after blocks.2, with 20 images of each class: accuracy 0.765 ± "
        "0.005 in 60 s.",
        "60 transfers were run", "birds: 1 run failed (truncate): out of memory", "in hindsight",
        "20 truncate birds blocks.2 3/3 0.765 ± 0.005 2 60", "SHA-256 " + SETTINGS["target_hash"],
        "CPU power is estimated.", "torch 2.9.0, timm 1.0.12", "Device cpu",
    ):  # fmt: skip
        assert expected in text
    assert text.count(SETTINGS["energy"]) == 1
    assert (rows_of(html, "best"), rows_of(html, "all")) == (6, len(measured_grid().table))
    assert "Every run failed." in text_of(bare(measurement(run(None))))
    assert "No run has ended yet." in text_of(bare(measurement()))


def test_a_comparison_says_which_layers_are_alike():
    reference = Reference("compact residual network", 0.5, 20, 70, 31, "finished")
    found = comparison(
        similarity([[0.9, 0.2, 0.3], [0.1, 0.5, 0.4]], standard_error=np.full((2, 3), 0.01)),
        similarity([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], "information_imbalance", p_value=np.full((2, 3), 0.25)),
        reference=reference,
    )
    text = text_of(bare(found))
    for expected in (
        "Linear CKA: of the layers of birds, a is most like one of plain (v, 0.900), b least (w, 0.500).",
        # The smaller, the more alike.
        "Information imbalance: of the layers of birds, a is most like one of plain (v, 0.100), b least (v, 0.400).",
        "a v 0.900 0.010", "a v 0.100 0.25", "90 images of shells.", "scratch: compact residual network",
        "estimator exact", "2 of birds, 3 of plain",
    ):  # fmt: skip
        assert expected in text
    nothing = comparison(similarity([[0.9]], informative=[[False]]))
    assert "Linear CKA is not informative for birds and plain." in text_of(bare(nothing))
    assert "a v 0.900 not informative" in text_of(bare(nothing))


def test_parameters_say_what_was_kept_of_each_source():
    html = bare(transferred_grid())
    text = text_of(html)
    for expected in (
        "birds: mean T 4.75 after 40 epochs (2.50 to 7.00 over targets and images); most transferable blocks.1 (7.50), "
        "least blocks.2 (3.00).",
        "plain: mean T", "matched steps (1,200)", "Initial weights of birds: redrawn, seeds 0 to 4.",
        "SHA-256 " + "0f" * 32, "SHA-256 " + "1e" * 32, "Paper Chen et al. 2022", "torch 2.9.0",
    ):  # fmt: skip
        assert expected in text
    assert rows_of(html, "transfers") == len(transferred_grid().table)
    stuck = bare(stuck_transfers()).decode()
    assert 'data-key="Infinity"' in stuck  # which JavaScript reads as a number
    assert "∞" in stuck


# --- whatever things are called ------------------------------------------------------------------------------------


def advice_called(name):
    way = replace(ADVICE.ways[2], layer=name)
    return replace(
        ADVICE, target=TargetSummary(name, 60, 4, "abc"), source=name, ways=(way, *ADVICE.ways[3:]), hint=name,
        failed=(Failure(name, name),), left_out=(Failure(name, name),), energy=name,
        pilots=(Pilot(name, 1, "truncate", 10, 0.5, 0.1, 1.0),),
    )  # fmt: skip


def everything_called(name):
    grid = transfer([1.0, 2.0], name, name)
    return [
        advice_called(name),
        measurement(run(0.5, source=name, layer=name), run(None, source=name), target=name, energy=name),
        compared(name, name, names_x=[name, "b"], names_y=[name, "w", "x"]),
        result(grid, targets=[{"name": name, "hash": "00", "classes": 2, "n_test": 5}], initial={name: name}),
    ]


@pytest.mark.parametrize("name", [EVIL, *AWKWARD])
def test_names_are_escaped_and_nothing_is_fetched(name):
    for found in everything_called(name):
        html = bare(found).decode()
        assert text_of(html).count(" ".join(name.split())) >= 3
        assert html.count("<script") == 1
        assert "<b>" not in html
        assert "default-src 'none'" in html
        assert set(re.findall(r"(?:src|href)=\"([^\"]*)\"", html)) <= {"data:,"}


def test_bytes_that_are_no_letters_can_be_written():
    assert b"a&#56575;b" in bare(advice_called("a\udcffb"))


def test_pictures_of_hostile_names_refer_to_parts_of_their_own():
    html = writers.views(result(transfer([1.0, 2.0], "a) b", EVIL)))["report.html"].decode()
    assert html.count("<svg") == 3
    ids = set(re.findall(r' id="([^"]+)"', html))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= ids
    assert html.count("<script") == 1


# --- however large they are ----------------------------------------------------------------------------------------


def test_a_table_shows_its_first_rows_and_says_where_all_are():
    values = list(np.linspace(0, 1, MOST_ROWS + 1))
    short, long = (Table("t", [numbers("x", part)], "all.csv") for part in (values[1:], values))
    assert (short.shown, short.rest) == (MOST_ROWS, "")
    assert long.shown == MOST_ROWS
    assert long.rest == f"The first {MOST_ROWS} of {MOST_ROWS + 1} rows; all are in all.csv, beside this page."
    assert replace(long, file="").rest == f"The first {MOST_ROWS} of {MOST_ROWS + 1} rows."
    page = advice_page.page(ADVICE, {}, {})
    html = replace(page, sections=[Section("s", "S", table=long)]).render()
    assert rows_of(html, "s") == MOST_ROWS
    assert long.rest in text_of(html)
    assert Column("x", ["", "∞"], [-np.inf, np.inf]).key(0) == "-Infinity"


def test_a_ranking_of_200_sources_and_1000_classes_is_a_small_page():
    depths = 30
    one = make_ranking({"a": np.linspace(0.5, 0.9, depths)}, target=TargetSummary("many", 20000, 1000, "0f" * 32))
    names = [f"source-{number}-of-a-rather-long-name" for number in range(200)]
    scores = xr.concat([one.scores.assign_coords(source=[name]) for name in names], "source")
    first = next(pick for pick in one.recommendations if pick.layer is not None)
    picks = tuple(replace(first, source=name, rank=rank, reason="why " * 100) for rank, name in enumerate(names, 1))
    many = replace(one, scores=scores.assign_attrs(one.scores.attrs), recommendations=picks)
    draw = {"depth_curves": plot.depth_curves, "pareto": plot.pareto}  # what grows with every cut
    wide = {name: Figure() for name in draw}
    for name, figure in wide.items():
        draw[name](many, figure.subplots())
    html = ranking_page(many, wide, {}).encode()
    assert len(html) < LIMIT / 4  # there are four such pictures, for a window and for a phone
    assert rows_of(html, "ranking") == 200
    # Of 6000 cuts those of the first ten sources tell their values.
    told = [html.decode().split(f'id="picture-{name}"')[1].split("</figure>")[0].count("<title>") for name in draw]
    assert all(10 * depths <= count < 30 * depths for count in told)


def test_a_comparison_of_150_layers_is_a_small_page():
    rng, names = np.random.default_rng(0), [f"blocks.{number}.attention.projection" for number in range(150)]
    found = comparison(similarity(rng.random((150, 150)), names_x=names, names_y=names))
    wide = {"linear_cka": plot.heatmaps({"": found.results["linear_cka"]})}
    html = comparison_page.page(found, wide, {}).render()
    assert len(html) < LIMIT / 2
    assert rows_of(html, "linear_cka") == 150
    assert b"data:image/png;base64" in html  # of cells that are too many


def test_a_measurement_of_200_sources_is_a_small_page():
    protocols = ("truncate", "svm", "nearest_mean", "toptuning", "reinit", "finetune", "defrost", "surgical")
    rows = [
        run(depth / 10, protocol, depth, source=f"source {number}")
        for number in range(200) for protocol in protocols for depth in (1, 2)
    ]  # fmt: skip
    found = measurement(*rows)
    html = bare(found)
    assert len(html) < LIMIT
    assert rows_of(html, "all") == MOST_ROWS
    assert "The first 500 of 3,200 rows; all are in measurement.csv, beside this page." in text_of(html)


def test_parameters_of_150_layers_and_many_sources_are_a_small_page():
    rng = np.random.default_rng(0)
    found = result(*(transfer(rng.random(150), f"source {number}") for number in range(8)))
    html = bare(found)
    assert len(html) < LIMIT
    text = text_of(html)
    assert "The first 500 of 3,600 rows; all are in parameters.csv, beside this page." in text
    assert "The pictures of 4 more sources lie beside this page." in text
    assert "And 2 more sources, in the table." in text


# --- the next step after a ranking ----------------------------------------------------------------------------------

RIDGE = {"birds": [0.54, 0.7, 0.557]}


def ranked(command="", settings=None, **changes):
    settings = {"seed": 0, "recipe": {}, **(settings or {})}
    return make_ranking(RIDGE, provenance=Provenance(settings, {}, versions(), command), **changes)


def step_of(ranking):
    html = ranking_page(ranking, {}, {})
    return unescape(re.search(r"<pre[^>]*><code>(.*?)</code></pre>", html, re.DOTALL)[1]), text_of(html)


def test_the_next_step_is_a_command_that_the_command_line_takes():
    made = (
        "transferscope rank --target 'my <data>' --value-range=-1000,400 --bands 3,2,1 --labels kind "
        "--sources 'zoo '\"'\"'1.yaml' --shots 5 --pilots 2 --trust-code --device cpu --output 'out put' --quiet"
    )
    made = shlex.join(shlex.split(made.replace("--value-range=", "--value-range ")))
    step, text = step_of(ranked(made))
    assert shlex.split(step) == [
        "transferscope", "transfer", "--target", "my <data>", "--value-range", "-1000,400", "--bands", "3,2,1",
        "--labels", "kind", "--sources", "zoo '1.yaml", "--trust-code", "--device", "cpu", "--ranking", "out put",
        "-o", "model",
    ]  # fmt: skip
    assert "transferscope predict --trust-code model IMAGES -o predictions.csv" in text
    asked = transfer_command.make_context("transfer", shlex.split(step)[2:]).params
    assert (asked["target"], asked["zoo"], asked["ranking"]) == ("my <data>", "zoo '1.yaml", "out put")
    assert asked["labels"] == ("kind",)
    assert (asked["value_range"], asked["bands"], asked["trust_code"]) == ((-1000, 400), (3, 2, 1), True)


def test_where_nothing_was_said_the_next_step_takes_the_folder_of_rank():
    step, text = step_of(ranked("transferscope rank --target data --sources zoo.yaml"))
    assert step == ("transferscope transfer --target data --sources zoo.yaml --ranking transferscope-results -o model")
    folder = next(param for param in rank_command.params if param.name == "output").default
    assert f"--ranking {folder}" in step
    assert "--trust-code" not in text


def test_without_a_command_the_next_step_is_a_call():
    assert step_of(ranked())[0] == "ts.transfer(target, zoo, 'model', ranking=ranking)"
    step, text = step_of(ranked(settings={"bands": [3, 2, 1], "value_range": [0, 4095]}))
    call = ast.parse(step).body[0].value
    given = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg != "ranking"}
    assert given == {"bands": [3, 2, 1], "value_range": [0, 4095]}
    assert set(given) < set(inspect.signature(ts.transfer).parameters)
    assert "trust_code=True" in text


def test_another_architecture_from_scratch_is_asked_for_by_its_source():
    own = Reference("birds's own architecture", 0.9, 200, 680, 31, "early")
    command = "transferscope rank --target data --sources zoo.yaml --reference own"
    step = step_of(ranked(command, scratch=0.95, reference=own))[0]
    assert step.endswith("--sources zoo.yaml --source birds --protocol scratch -o model")
    assert step_of(ranked(scratch=0.95, reference=own))[0].endswith("source='birds', protocol='scratch')")
    assert "--ranking" in step_of(ranked(command, reference=own))[0]


# --- how far to trust it --------------------------------------------------------------------------------------------


def test_a_ranking_says_what_its_intervals_are_worth():
    text = step_of(ranked())[1]
    assert "in four cases of five" in text
    assert "rank --pilots auto runs a few before" in text
    pilots = (Pilot("birds", 2, "truncate", 120, 0.75, 0.0217, 31.4),)
    text = step_of(ranked(pilots=pilots))[1]
    assert "Here a pilot, a real transfer to this target, narrowed that; the intervals are those after it." in text
    assert "--pilots auto" not in text
    assert "a calibration of your own" in step_of(ranked(settings={"calibration": "mine.json"}))[1]
