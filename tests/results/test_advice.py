"""What people read of advice: the sentence, the table, the files."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from advices import ADVICE
from rich.console import Console

from transferscope.errors import InputError
from transferscope.report.terminal.advice import print_advice
from transferscope.runtime.failures import Failure


def shown(advice, width=130):
    console = Console(width=width, record=True, file=io.StringIO())
    print_advice(advice, console)
    return " ".join(console.export_text().split())


class TestWords:
    def test_the_answer_in_words(self):
        assert ADVICE.verdict == (
            "Transfer net by top-tuning after blocks.[red]2, with 25 images of each class: expected accuracy 0.790 "
            "[0.690, 0.840] in 2 s (2e-06 kWh). The most accurate, full fine-tuning, is expected to reach 0.800 "
            "[0.700, 0.850] and takes 617 times as long."
        )
        best = replace(ADVICE, advised="finetune", samples=42)
        assert best.verdict.startswith("Transfer net by full fine-tuning, with 10.5 images of each class")
        assert best.verdict.endswith("in 1,234 s (0.00123 kWh). Nothing is expected to be more accurate.")

    @pytest.mark.parametrize(
        ("protocol", "said"),
        [
            ("truncate", "Transfer net by a linear head after blocks.[red]2,"),
            ("fne", "Transfer net by the full-network embedding,"),
            ("reinit", "Transfer net by partial fine-tuning, frozen up to blocks.[red]2,"),
            ("defrost", "Transfer net by fine-tuning with its first stages frozen, up to blocks.[red]2,"),
            ("scratch", "Train net from scratch,"),
        ],
    )
    def test_each_way_has_words(self, protocol, said):
        assert replace(ADVICE, advised=protocol).verdict.startswith(said)

    def test_where_it_changes(self):
        assert ADVICE.turning == (
            "The advice changes between 40 and 50 images of each class from top-tuning to full fine-tuning (from 15 "
            "to 300 images of each class)."
        )
        same = "The advice stays the same from 15 to 300 images of each class."
        assert replace(ADVICE, changes=()).turning == same

    def test_the_table_and_what_its_numbers_mean(self):
        text = shown(ADVICE)
        for words in (
            "* top-tuning toptuning blocks.[red]2 3/7 0.790 0.690-0.840 2 2e-06 1e-06 21",
            "fine-tuning, first stages frozen defrost blocks.[red]2 3/7 0.770 0.670-0.820 500",
            "from scratch scratch 0.400 0.300-0.450 2,000 0.002 0.001 1",
            "within 0.02 of the most accurate",
            "trained on 100 images of 4 classes",
            "for 12.3 s",
            "Energy is an estimate.",
        ):
            assert words in text

    def test_what_failed_is_said(self):
        text = shown(
            replace(ADVICE, left_out=(Failure("reinit", "cannot be cut"),), failed=(Failure("other", "no file"),))
        )
        assert "Left out: partial fine-tuning: cannot be cut" in text
        assert "other failed: no file" in text

    def test_unknown_energy_is_left_empty(self):
        unknown = replace(ADVICE, ways=tuple(replace(each, kwh=math.nan, kgco2e=math.nan) for each in ADVICE.ways))
        assert "nan" not in shown(unknown)
        assert "kWh)" not in unknown.verdict
        assert json.loads(unknown.to_json())["ways"][0]["kwh"] is None


class TestFiles:
    def test_json_and_csv_hold_the_same(self, tmp_path):
        assert [path.name for path in ADVICE.save(tmp_path / "out")] == [
            "advice.json", "advice.csv", "advice.png", "report.html"
        ]  # fmt: skip
        content = json.loads((tmp_path / "out" / "advice.json").read_text(encoding="utf-8"))
        assert content["schema_version"] == 1
        assert (content["source"], content["samples_per_class"], content["advised"]) == ("net", 25, "toptuning")
        assert content["changes"] == [{"between": [40, 50], "before": "toptuning", "after": "finetune"}]
        rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "advice.csv").read_text(encoding="utf-8"))))
        assert [row["advised"] for row in rows] == ["False", "False", "True", "False", "False", "False", "False"]
        for row, told in zip(rows, content["ways"], strict=True):
            for name in ("expected_accuracy", "seconds", "kwh", "kgco2e", "trials", "depth"):
                assert float(row[name]) == pytest.approx(told[name])
            assert [float(row["lower"]), float(row["upper"])] == pytest.approx(told["interval"])
            assert (row["way"], row["protocol"], row["layer"]) == (told["way"], told["protocol"], told["layer"])

    def test_a_folder_that_cannot_be_written_is_an_input_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="output folder to be writable"):
            ADVICE.save(tmp_path / "file")
