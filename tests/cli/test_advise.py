"""`transferscope advise`: what goes where, and what is refused how."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from image_folders import coloured_noise
from result_folders import visible

from transferscope.cli import run
from transferscope.results.advice import Advice, Way
from transferscope.results.summary import TargetSummary
from transferscope.runtime.failures import Failure
from transferscope.verbs.advise import costs

WAYS = ["truncate", "fne", "toptuning", "reinit", "defrost", "finetune", "scratch"]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Three classes of coloured noise, a zoo, and a cache that the tests share."""
    folder = tmp_path_factory.mktemp("advise")
    coloured_noise(folder / "my dätä")
    (folder / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\n\nprint('a factory says hello')\n\n"
        "def build():\n    return CompactResNet(3, width=4)\n\n"
        "def bad():\n    raise RuntimeError('[no] way')\n"
    )
    for zoo, factories in (("zoo", ["build"]), ("two", ["build", "bad"])):
        entries = [
            {"name": name, "loader": "python", "factory": f"nets.py:{name}", "transform": {"size": 16}}
            for name in factories
        ]
        (folder / f"{zoo}.yaml").write_text(json.dumps({"version": 1, "sources": entries}))
    return folder


@pytest.fixture
def home(house):
    return house / "home"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No more timing than is needed."""
    monkeypatch.setattr(costs, "_SECONDS", 0.0)
    monkeypatch.setattr("transferscope.verbs.advise.advise._SIZES", 3)


@pytest.fixture
def advise(house):
    def command(*more, zoo="zoo", trust=True):
        options = ["--device", "cpu", "--reference-epochs", "1", "-o", "out", *(["--trust-code"] if trust else [])]
        zoo = str(house / f"{zoo}.yaml")
        return run(["advise", "--target", str(house / "my dätä"), "--sources", zoo, *options, *more])

    return command


@pytest.fixture
def told(monkeypatch, undrawn):
    """Say this whatever is asked, and remember what that was."""
    ways = (
        Way("truncate", 2, "late", 0.8, (0.7, 0.9), 1.0, 1e-6, 5e-7, 5),
        Way("scratch", 0, "", 0.4, (0.2, 0.6), 9.0, 1e-5, 5e-6, 1),
    )
    advice = Advice(
        TargetSummary("data", 30, 3, "abc"), "net", 2, 30, 0.02, ways, "truncate", (), (10, 90), "Estimated.", 3.0
    )
    known = SimpleNamespace(advice=advice, asked={})

    def say(request):
        known.asked = vars(request)
        return known.advice

    monkeypatch.setattr("transferscope.verbs.advise.advise.answer", say)
    return known


class TestAnswers:
    def test_json_alone_on_stdout_and_everything_else_on_stderr(self, advise, capfd):
        assert advise("--format", "json", "--country", "ESP", "--shots", "10", "--tolerance", "0.1") == 0
        out, err = capfd.readouterr()
        answer = json.loads(out)
        assert answer["target"] | {"hash": ""} == {"name": "my dätä", "samples": 30, "classes": 3, "hash": ""}
        assert [way["protocol"] for way in answer["ways"]] == WAYS
        assert (answer["source"], answer["samples"], answer["tolerance"]) == ("build", 30, 0.1)
        assert answer["advised"] in WAYS
        assert "Spain" in answer["energy"]
        assert answer["failed"] == answer["left_out"] == []
        assert "a factory says hello" in err
        assert "Wrote 4 files to out: advice.json, advice.csv, report.html, 1 picture.\n" in err
        assert "Open out/report.html in a browser." in err
        assert Path("out/advice.json").read_text(encoding="utf-8") == out

    def test_csv_on_stdout_is_the_table(self, advise, told, capsys):
        assert advise("--format", "csv") == 0
        out = capsys.readouterr().out
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["protocol"] for row in rows] == ["truncate", "scratch"]
        assert Path("out/advice.csv").read_text(encoding="utf-8") == out

    def test_the_table_is_for_people_and_quiet_says_nothing_else(self, advise, told, capsys, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        assert advise("-q", "--source", "other", "--tolerance", "0.3", "--batch-size", "7", "--samples", "20") == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "Transfer net by a linear head after late, with 10 images of each class" in " ".join(out.split())
        asked = {name: told.asked[name] for name in ("source", "tolerance", "batch_size", "samples", "progress")}
        assert asked == {"source": "other", "tolerance": 0.3, "batch_size": 7, "samples": 20, "progress": False}
        assert told.asked["recipe"].epochs == 1

    @pytest.mark.parametrize("which", ["failed", "left_out"])
    def test_what_failed_is_exit_code_3_and_listed(self, advise, told, capsys, which):
        told.advice = replace(told.advice, **{which: (Failure("bad", "no such thing"),)})
        assert advise() == 3
        assert "no such thing" in capsys.readouterr().out

    def test_a_source_that_cannot_be_used_is_a_known_failure(self, advise, capsys):
        assert advise("--source", "bad", zoo="two") == 1
        assert "error: No source could be ranked. bad: " in capsys.readouterr().err

    def test_ctrl_c_ends_with_130(self, advise, capsys, monkeypatch):
        def interrupted(*_args, **_options):
            raise KeyboardInterrupt

        for work in ("answer_and_belief", "head_shifts", "_costs", "Timer.training", "Timer.forward"):
            with monkeypatch.context() as context:
                context.setattr(f"transferscope.verbs.advise.advise.{work}", interrupted)
                assert advise() == 130
            out, err = capsys.readouterr()
            assert out == ""
            assert "Interrupted" in err
            assert visible(Path("out")) == set()


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--tolerance", "1"], "--tolerance"),
            (["--tolerance", "-0.1"], "--tolerance"),
            (["--tolerance", "nan"], "--tolerance"),
            (["--shots", "0"], "--shots"),
            (["--shots", "some"], "--shots"),
            (["--source", "biuld"], "`source` to name a source of the zoo, but got 'biuld' (did you mean 'build'?)"),
            (["--samples", "5"], "samples = 5 is too few for 3 classes"),
            (["--country", "Germany"], "'Germany' (did you mean 'DEU'?)"),
            (["--device", "gpu"], "gpu"),
            (["--target", "nowhere"], "nowhere"),
            (["--sources", "nowhere.yaml"], "nowhere.yaml"),
            (["-o", ""], "output folder to have a name"),
        ],
    )
    def test_wrong_usage_is_one_sentence(self, advise, capsys, arguments, said):
        assert advise(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
        assert "Traceback" not in err
        assert not Path("out/advice.json").exists()

    def test_factories_need_trust(self, advise, capsys):
        assert advise(trust=False) == 2
        err = capsys.readouterr().err
        assert "--trust-code" in err
        assert "hello" not in err
