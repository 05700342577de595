"""The report page: one file that renders, sorts, tells values and asks nobody for anything, and the SVG in it."""

import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from rankings import AWKWARD, make_ranking

from transferscope.report import plot
from transferscope.report.html.page import fragment, page
from transferscope.report.html.svg import svg
from transferscope.report.plots.drawing import hover
from transferscope.results.summary import TargetSummary
from transferscope.runtime.failures import Failure
from transferscope.runtime.provenance import Provenance, versions

pytestmark = pytest.mark.bounds

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>document.title='run'</script><b>\"'&amp;"
MADE = Provenance(
    {"samples": 1000, "seed": 7, "device": "cpu", "shots": None, "scores": ["logme"], "recipe": {"epochs": 40}},
    {"birds": "ab" * 32},
    versions(),
    "transferscope rank --target 'my <data>' --sources zoo.yaml",
)


# --- figures as SVG -----------------------------------------------------------------------------------------------


def titles(text):
    """Return the titles in an SVG, in order of the marks."""
    return [title.text for title in ElementTree.fromstring(text).iter(f"{SVG}title")]


def drawn(draw):
    figure = Figure()
    draw(figure.subplots())
    return figure


def test_every_point_bar_and_cell_has_its_title():
    def draw(ax):
        (line,) = ax.plot([0, 1, 2], [3, 1, 2], marker="o")
        hover(line, ["a", "b", "c"])
        hover(ax.scatter([0, 1], [1, 1], marker="s"), ["d", "e"])
        for bar, text in zip(ax.bar([0, 1], [1, 2]), "fg", strict=True):
            hover(bar, [text])
        hover(ax.pcolormesh(np.arange(6).reshape(2, 3)), list("hijklm"))

    text = svg(drawn(draw), "one", "a picture")
    assert sorted(titles(text)) == list("abcdefghijklm")
    root = ElementTree.fromstring(text)
    parents = {child: parent for parent in root.iter() for child in parent}
    # A title belongs to a mark, and those of a line stand at its points, from left to right.
    marks = [parents[title] for title in root.iter(f"{SVG}title")]
    assert {mark.tag for mark in marks} == {f"{SVG}use", f"{SVG}path"}
    xs = [float(mark.get("x")) for mark in marks if mark.find(f"{SVG}title").text in "abc"]
    assert xs == sorted(xs)


def test_titles_that_are_not_as_many_as_the_marks_are_left_out():
    def draw(ax):
        hover(ax.plot([0, 1, np.nan], [1, 2, 3], marker="o")[0], ["a", "b", "c"])

    assert titles(svg(drawn(draw), "one", "")) == []


def test_a_heatmap_too_large_for_a_page_becomes_a_picture():
    def draw(ax):
        values = np.zeros((100, 100))
        hover(ax.pcolormesh(values), [str(i) for i in range(values.size)])

    text = svg(drawn(draw), "one", "")
    assert titles(text) == []
    assert "data:image/png;base64" in text
    assert len(text) < 100_000


def test_an_svg_is_the_same_every_time_with_ids_of_its_own_and_text_that_stays_text():
    figures = [drawn(lambda ax: ax.set_title("a $ b")) for _ in range(2)]
    first, again = (svg(figure, "one", 'said "aloud"') for figure in figures)
    assert first == again
    assert ">a $ b</text>" in first
    assert ElementTree.fromstring(first).get("aria-label") == 'said "aloud"'
    other = svg(figures[0], "two", "")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, other)]
    assert not ids[0] & ids[1]
    for text, own in zip((first, other), ids, strict=True):
        named = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
        assert {a or b for a, b in named} <= own


# --- the page without a browser -----------------------------------------------------------------------------------


def make_page(ranking):
    return page(ranking, plot.figures(ranking), plot.figures(ranking, context="paper"))


@pytest.fixture(scope="module")
def ranking():
    return make_ranking(
        {"birds": [0.54, 0.7, 0.557], "plain": [0.4, 0.41, 0.42, 0.43], EVIL: [0.1, 0.69]},
        errors={"logme": 0.25}, baselines={"preference": 2}, provenance=MADE, warnings=("2 images are broken.",),
        target=TargetSummary("shells & <co>", 1000, 6, "0f" * 32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(ranking):
    return make_page(ranking)


def test_equal_rankings_give_equal_pages(ranking, html):
    assert make_page(ranking) == html


def test_the_page_holds_everything_there_is_to_know(ranking, html):
    from html import unescape

    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())
    for expected in (
        ranking.answer, ranking.caveats, *(pick.reason for pick in ranking.recommendations), "gone failed:",
        "No checkpoint at gone.pt.", "2 images are broken.", MADE.command, "Seed 7", ranking.target.hash, "ab" * 32,
        f"torch {MADE.versions['torch']}", "epochs 40", "0.500 on 200 held-out images", "± 0.250",
    ):  # fmt: skip
        assert " ".join(expected.split()) in text


def test_nothing_is_fetched_and_names_are_escaped(html):
    assert EVIL not in html
    assert "<script>document.title" not in html
    # Only names of things, as of XML, may look like addresses.
    addresses = set(re.findall(r"(?:src|href)=\"([^\"]*)\"", html))
    assert not {address for address in addresses if not address.startswith(("#", "data:"))}
    assert "default-src 'none'" in html


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_names_stand_in_page_and_notebook(name):
    ranking = make_ranking({name: [0.6, 0.7], "other": [0.69]}, target=TargetSummary(name, 10, 2, "00"))
    from html import escape

    for text in (page(ranking, {}, {}), fragment(ranking)):
        assert text.count(escape(name).replace("&#x27;", "&#39;")) >= 2


def test_a_ranking_without_reference_sources_or_provenance_has_a_page_too():
    bare = make_ranking({"birds": [0.7]}, scratch=None, reference=None, failed=())
    assert "There was none." in make_page(bare)
    alone = make_ranking({"birds": [0.2]}, scratch=0.9)
    alone = replace(alone, recommendations=alone.recommendations[:1], failed=(Failure("birds", "gone"),))
    assert "Train from scratch" in make_page(alone)


def test_in_a_notebook_stand_the_answer_and_a_row_for_each(ranking):
    text = ranking._repr_html_()
    assert text.count("<tr>") == 1 + len(ranking.recommendations)
    assert "<script" not in text.replace("&lt;script", "")
    assert "gone" in text


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, html, tmp_path):
    """Return a function that opens the page, and watches what it asks for and complains of."""
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    contexts, told = [], []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: told.append(message.text))
        tab.on("pageerror", lambda error: told.append(str(error)))
        tab.on("request", lambda request: told.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    # The page itself, opened as a file, and nothing else: no other request, no error in the console.
    assert told == [path.as_uri()] * len(contexts)


def shown(tab, header):
    """Return the cells of a column of the ranking, from top to bottom."""
    headers = tab.locator("#ranking th").all_inner_texts()
    column = [text.strip(" ▲▼") for text in headers].index(header)
    return tab.locator(f"#ranking tbody td:nth-child({column + 1})").all_inner_texts()


def test_it_renders_and_sorts(opened, ranking):
    tab = opened()
    assert tab.title().startswith("shells & <co>: ")
    assert tab.locator("h1").inner_text() == ranking.answer
    assert tab.locator("figure .ts-wide svg:visible").count() == len(plot.figures(ranking))
    assert tab.locator("figure .ts-narrow svg:visible").count() == 0
    sources = [pick.source for pick in ranking.recommendations]
    assert shown(tab, "source") == sources
    heading = tab.locator("#ranking").get_by_role("button", name="accuracy", exact=True)
    values = [pick.expected_accuracy for pick in ranking.recommendations]
    for reverse, order in ((False, "ascending"), (True, "descending")):
        heading.click()
        assert shown(tab, "accuracy") == [f"{value:.3f}" for value in sorted(values, reverse=reverse)]
        assert tab.locator("#ranking th[aria-sort]").get_attribute("aria-sort") == order
    tab.locator("#ranking").get_by_role("button", name="uncut", exact=True).click()
    # Scratch has no such number.
    assert shown(tab, "uncut")[-1] == ""
    tab.locator("#ranking").get_by_role("button", name="source", exact=True).press("Enter")
    assert sorted(shown(tab, "source")) == sorted(sources)
    assert shown(tab, "source").index("birds") < shown(tab, "source").index("plain")


def test_a_pointer_and_a_finger_read_values(opened, ranking):
    tab = opened()
    mark = tab.locator("#picture-pareto .ts-wide [data-tip]").first
    mark.scroll_into_view_if_needed()
    assert tab.locator("#tip").is_hidden()
    box = mark.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tab.locator("#tip").inner_text()
    tab.mouse.move(0, 0)
    assert tab.locator("#tip").is_hidden()
    phone = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    mark = phone.locator("#picture-ranking .ts-narrow [data-tip]").first
    mark.scroll_into_view_if_needed()
    mark.tap(force=True)
    assert phone.locator("#tip").inner_text()


def test_it_fits_a_phone_a_dark_room_and_paper(opened):
    phone = opened(viewport={"width": 390, "height": 844}, is_mobile=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    # Its pictures are those for a phone, and as wide as it.
    assert phone.locator(".ts-wide svg:visible").count() == 0
    widths = phone.locator(".ts-narrow svg").evaluate_all("all => all.map(svg => svg.getBoundingClientRect().width)")
    assert widths
    assert max(widths) <= 390
    light, dark = (
        opened(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    )
    assert light == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", dark))) < 64
    assert opened().pdf()[:5] == b"%PDF-"
