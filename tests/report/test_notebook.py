"""Notebooks: what is shown of a target and a recommendation, and that progress works with widgets and without."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from textwrap import dedent

import nbformat
import numpy as np
import pytest
from image_folders import write
from nbclient import NotebookClient

from transferscope.data import samples
from transferscope.data.target import load_target
from transferscope.errors import TransferscopeWarning
from transferscope.results.recommendation import Recommendation

EVIL = "<script>alert(1)</script>"

PICK = Recommendation(
    rank=1, source="owl", layer="blocks.2", depth=3, depths=5, protocol="truncate", expected_accuracy=0.8125,
    interval=(0.75, 0.875), params=1234567, flops=98765432100,
    scores={"logme": -0.25, "logme_standard_error": 0.0125, "leep": float("nan")}, baselines={"source_accuracy": 0.7},
    beats_next=0.751, tied_with=("wren", "scratch", "crow"), level_with=("crow",), probability_best=0.4375,
    reason="Because of the figures.",
)  # fmt: skip


class Page(HTMLParser):
    """What a fragment holds: its words, cells and addresses; it fails where the fragment is not sound."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.rows, self.addresses, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "style", "iframe")
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.styles += [value for name, value in attrs if name == "style"]
        if tag not in ("img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


def page(shown):
    text = shown._repr_html_()
    found = Page(text)
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.addresses)
    assert not re.search("color|background", " ".join(found.styles))  # light or dark is for the notebook to say
    return found


def test_a_recommendation_says_what_to_do_and_what_to_expect():
    found = page(PICK)
    assert found.text.startswith(
        "1. Start from owl , cut after blocks.2 (depth 3 of 5), its features frozen, a linear head trained on them."
    )
    assert found.rows[:8] == [
        ["expected accuracy", "0.812 [0.750, 0.875] (80 % interval)"],
        ["protocol", "truncate"],
        ["parameters", "1,234,567"],
        ["FLOPs per image", "98,765,432,100"],
        ["probability that it is the best of all", "0.44"],
        ["level with", "crow"],
        ["tied with", "wren, scratch"],
        ["probability that it beats the next", "0.75"],
    ]
    assert found.rows[8:] == [
        ["score", "value", "standard error"],
        ["logme", "-0.25", "0.0125"],
        ["leep", "", ""],
        ["source_accuracy", "0.7", ""],
    ]
    assert "Because of the figures." in found.text
    assert page(replace(PICK, scores={"ridge": 0.5})).rows[8:10] == [["score", "value"], ["ridge", "0.5"]]


def test_training_from_scratch_is_a_recommendation_too():
    scratch = replace(
        PICK, source="scratch", layer=None, depth=0, protocol="scratch", scores={}, baselines={}, beats_next=None,
        tied_with=(), level_with=(), probability_best=None, reason="",
    )  # fmt: skip
    found = page(scratch)
    assert found.text.startswith("1. Train from scratch . expected accuracy")
    assert [row[0] for row in found.rows] == ["expected accuracy", "protocol", "parameters", "FLOPs per image"]


def test_a_target_shows_its_classes_and_an_image_of_each(tmp_path):
    write(tmp_path / "shells", "train/cone*30", "train/snail*20", "val/cone*4")
    (tmp_path / "shells" / "train" / "cone" / "007.png").write_bytes(b"text")
    with pytest.warns(TransferscopeWarning, match="skipped"):
        target = load_target(tmp_path / "shells")
    found = page(target)
    assert found.text.startswith(
        f"shells : 53 images, 2 classes, 1 broken image skipped (SHA-256 {target.hash[:12]} ) cone snail"
    )
    assert found.rows == [["class", "train", "val"], ["cone", "29", "4"], ["snail", "20", "0"]]
    assert len(found.addresses) == 2


def test_of_many_classes_and_large_images_little_is_shown(monkeypatch):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 200, 300, 3), dtype=np.uint8)  # noise, which nothing compresses
    target = load_target((images, np.repeat(np.arange(30), 2)))
    reads, read = [], samples._Pixels.read
    monkeypatch.setattr(samples._Pixels, "read", lambda self, place: reads.append(place) or read(self, place))
    found = page(target)
    assert reads == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len(found.addresses) == 8
    assert len(target._repr_html_()) < 60_000
    assert found.rows[0] == ["class", "images"]
    assert found.rows[-2:] == [["19", "2"], ["and 10 more classes"]]
    assert page(target.subset([])).rows[0] == ["class"]


def test_broken_images_and_evil_names_do_no_harm(tmp_path):
    write(tmp_path, "a*2", "b*2")
    target = load_target(tmp_path, name=EVIL)
    (tmp_path / "a" / "000.png").write_bytes(b"")
    found = page(target)
    assert len(found.addresses) == 1
    assert EVIL in found.text
    names = load_target((np.zeros((4, 5, 5), np.uint8), [EVIL, EVIL, '"><img src=x>', '"><img src=x>']))
    assert page(names).rows[1:] == [['"><img src=x>', "2"], [EVIL, "2"]]
    assert EVIL in page(replace(PICK, source=EVIL, layer=EVIL, tied_with=(EVIL,), reason=EVIL, scores={EVIL: 1.0})).text


CELLS = {
    "widgets": """
        from transferscope.runtime.progress import Reporter

        with Reporter().bar("owl (1 of 3)") as report:
            for done in range(0, 90, 30):
                report(done, 90)
        """,
    "text": """
        import sys

        for name in [name for name in sys.modules if name.split(".")[0] in ("ipywidgets", "tqdm", "transferscope")]:
            del sys.modules[name]
        sys.modules["ipywidgets"] = None

        from transferscope.runtime.progress import Reporter

        with Reporter().bar("owl (1 of 3)") as report:
            for done in range(0, 90, 30):
                report(done, 90)
        """,
    "target": """
        import numpy as np
        import transferscope as ts

        ts.load_target((np.zeros((4, 8, 8), np.uint8), ["cone", "cone", "snail", "snail"]), name="shells")
        """,
    "recommendation": """
        ts.Recommendation(
            rank=1, source="owl", layer="stem", depth=1, depths=1, protocol="truncate", expected_accuracy=0.5,
            interval=(0.4, 0.6), params=1, flops=1,
        )
        """,
}


def test_a_notebook_shows_bars_with_widgets_and_without_and_results_as_pages():
    cells = [nbformat.v4.new_code_cell(dedent(code)) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = dict(zip(CELLS, (cell.outputs for cell in notebook.cells), strict=True))
    streams = [output.name for outputs in shown.values() for output in outputs if output.output_type == "stream"]
    assert set(streams) == {"stdout"}  # a warning would be on stderr

    (widget,) = shown["widgets"]
    assert "application/vnd.jupyter.widget-view+json" in widget.data
    assert widget.data["text/plain"].startswith("owl (1 of 3)")
    text = "".join(output.text for output in shown["text"])
    assert re.search(r"\rowl \(1 of 3\) +0% \|.*\| 0/90 \[00:00, .* left\]", text)
    assert text.split("\r")[-2:] == [" " * len(text.split("\r")[-2]), ""]
    for name in ("target", "recommendation"):
        (result,) = shown[name]
        assert Page(result.data["text/html"]).rows
