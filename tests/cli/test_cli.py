import csv
import html
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from result_folders import visible
from safetensors.torch import save_file

from transferscope.cli import VERBS, run
from transferscope.networks.compact import CompactResNet
from transferscope.protocols import scratch
from transferscope.protocols.finetuning import MIN_STEPS


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One cache for all."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def zoo(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from transferscope.networks import CompactResNet\ndef build():\n    return CompactResNet(3, width=4)\n"
    )
    torch.manual_seed(0)
    save_file(CompactResNet(3, width=4).state_dict(), tmp_path / "net.safetensors")
    path = tmp_path / "zoo.yaml"
    path.write_text(
        "version: 1\n"
        "sources:\n"
        "  - name: first\n"
        "    loader: python\n"
        "    factory: nets.py:build\n"
        "    checkpoint: net.safetensors\n"
        "    transform: {size: 16}\n"
        "  - name: second\n"
        "    loader: python\n"
        "    factory: nets.py:build\n"
        "    transform: {size: 16}\n"
    )
    return path


def rank(target, zoo, *more):
    options = ["--device", "cpu", "--reference-epochs", "1", "--trust-code", "-o", "out"]
    return run(["rank", "--target", str(target), "--sources", str(zoo), *options, *more])


class TestRank:
    @pytest.mark.bounds
    def test_json_alone_on_stdout_everything_else_on_stderr_and_files_that_can_be_loaded(self, target, zoo, capsys):
        assert rank(target, zoo, "--format", "json") == 0
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert answer["schema_version"] == 1
        assert answer["target"] == {
            "name": target.name, "samples": 36, "classes": 3, "hash": answer["target"]["hash"],
        }  # fmt: skip
        assert len(answer["target"]["hash"]) == 64
        first = answer["ranking"][0]
        assert set(first) == {
            "rank", "source", "layer", "depth", "depths", "protocol", "expected_accuracy", "interval", "params",
            "flops", "scores", "baselines", "beats_next", "tied_with", "level_with", "probability_best", "reason",
        }  # fmt: skip
        assert first["rank"] == 1
        assert first["interval"][0] <= first["expected_accuracy"] <= first["interval"][1]
        assert answer["failed"] == []
        n_pictures = sum(name.endswith(".png") for name in os.listdir("out"))
        told, where = err.splitlines()[-2:]
        assert told.startswith(f"Wrote {len(visible(Path('out')))} files to out: ")
        assert told.endswith(f", {n_pictures} pictures.")
        assert {"ranking.json", "ranking.csv", "scores.nc"} <= set(told.rpartition(": ")[2].split(", "))
        assert where == "Open out/report.html in a browser."
        written = visible(Path("out"))
        pictures = ["depth_curves.png", "pareto.png", "ranking.png", "similarity.png", "source_depth.png"]
        tables = ["cuts.csv", "ranking.csv", "ranking.json", "report.html", "scores.nc"]
        assert written == {*pictures, *tables}
        with open("out/ranking.json", encoding="utf-8") as file:
            assert file.read() == out
        with open("out/report.html", encoding="utf-8") as file:
            page = html.unescape(file.read())
        command = ["--target", str(target), "--sources", str(zoo), "--device", "cpu", "--reference-epochs", "1"]
        typed = ["--trust-code", "--output", "out", "--format", "json"]
        for part in (["transferscope", "rank", *command[:4]], command[4:6], command[6:], typed[:1], typed[1:]):
            assert shlex.join(part) in page
        import transferscope as ts

        ranking = ts.load_ranking("out")
        assert ranking.to_json() == out
        for name in ("depth_curves.png", "similarity.png"):
            with Image.open(f"out/{name}") as image:
                assert image.width > 300

    @pytest.mark.usefixtures("unsaved")
    def test_csv_on_stdout_is_the_table(self, target, zoo, capsys):
        assert rank(target, zoo, "--format", "csv") == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["rank"] for row in rows] == ["1", "2", "3"]
        assert {row["source"] for row in rows} == {"first", "second", "scratch"}

    @pytest.mark.usefixtures("unsaved")
    def test_scores_are_given_by_commas_or_several_times(self, target, zoo, capsys):
        assert (
            rank(target, zoo, "--scores", "leep, parc", "--scores", "logme", "--uncertainty", "2", "--format", "json")
            == 0
        )
        row = json.loads(capsys.readouterr().out)["ranking"]
        found = next(each["scores"] for each in row if each["scores"])
        assert {"leep", "parc", "logme", "ridge", "parc_standard_error", "leep_standard_error"} <= set(found)
        assert not {"hscore", "nce"} & set(found)
        assert rank(target, zoo, "--scores", "default,nce", "-q") == 0
        out = capsys.readouterr().out
        for word in ("nce", "nearest_mean", "network_params (baseline)", "is unknown with fewer than 3"):
            assert word in " ".join(out.split())

    def test_the_help_names_every_score(self, capsys):
        from transferscope.transferability import SCORES

        assert run(["rank", "--help"]) == 0
        words = capsys.readouterr().out.replace(",", " ").replace(";", " ").replace(".", " ").split()
        assert set(SCORES) <= set(words)

    def test_the_reference_is_trained_as_in_python(self, target, zoo, capsys, monkeypatch):
        recipes = []

        def noted(request):
            recipes.append(request.recipe)
            raise KeyboardInterrupt

        monkeypatch.setattr("transferscope.verbs.rank.rank.answer", noted)
        places = ["--target", str(target), "--sources", str(zoo)]
        assert run(["rank", *places]) == 130
        assert run(["rank", *places, "--reference-epochs", "7", "--reference-budget", "9"]) == 130
        assert recipes == [scratch.reference_recipe(), scratch.reference_recipe(7, 9.0)]
        assert run(["rank", "--help"]) == 0
        assert f"as many as make {MIN_STEPS} optimiser steps" in " ".join(capsys.readouterr().out.split())

    @pytest.mark.usefixtures("unsaved")
    def test_verbose_puts_the_baselines_beside_the_scores(self, target, zoo, capsys):
        zoo.write_text(zoo.read_text().replace("sources:", "order: [second]\nsources:"))
        assert rank(target, zoo, "-v") == 0
        out = capsys.readouterr().out
        assert "preference" in out
        assert rank(target, zoo, "-q") == 0
        assert "preference" not in capsys.readouterr().out

    @pytest.mark.usefixtures("unsaved")
    def test_table_starts_with_the_answer_and_a_second_run_repeats_it(self, target, zoo, capsys, tmp_path, monkeypatch):
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "home"))
        assert rank(target, zoo) == 0
        first = capsys.readouterr().out
        assert first.startswith(("Start from", "Train from scratch"))
        for word in ("first", "second", "scratch", "80 % interval", "36 images"):
            assert word in first
        assert rank(target, zoo) == 0
        assert capsys.readouterr().out == first

    @pytest.mark.usefixtures("undrawn")
    def test_quiet_says_nothing_on_stderr(self, target, zoo, capsys):
        assert rank(target, zoo, "-q", "--format", "json") == 0
        assert capsys.readouterr().err == ""

    @pytest.mark.usefixtures("unsaved")
    def test_failing_source_is_exit_code_3_and_the_others_are_ranked(self, target, zoo, capsys):
        os.remove("net.safetensors")
        assert rank(target, zoo, "--format", "json") == 3
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert [failure["source"] for failure in answer["failed"]] == ["first"]
        assert {row["source"] for row in answer["ranking"]} == {"second", "scratch"}
        assert "net.safetensors" in err
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--samples", "5"], 2, "at least 6"),
            (["--samples", "none"], 2, "--samples"),
            (["--reference", "nothing"], 2, "`reference`"),
            (["--batch-size", "0"], 2, "--batch-size"),
            (["--format", "xml"], 2, "'json'"),
            (["--device", "tpu"], 2, "'auto', 'cpu', 'cuda'"),
            (["--nonsense"], 2, "--nonsense"),
            (["--seed", "99999999999999999999999"], 2, "--seed"),
            (["-o", ""], 2, "output folder"),
            (["--scores", "logmee"], 2, "'logmee' (did you mean 'logme'"),
            (["--scores", "logme,,ridge"], 2, "`scores`"),
            (["--uncertainty", "1"], 2, "--uncertainty"),
        ],
    )
    def test_wrong_usage_is_one_sentence(self, target, zoo, capsys, arguments, code, message):
        assert rank(target, zoo, *arguments) == code
        out, err = capsys.readouterr()
        assert message in err
        assert "Traceback" not in err
        assert out == ""

    @pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that must not exist")
    def test_an_explicit_gpu_that_is_not_there_is_an_error(self, target, zoo, capsys):
        assert rank(target, zoo, "--device", "cuda") == 1
        assert "'cpu'" in capsys.readouterr().err

    def test_wrong_paths_name_what_was_expected(self, target, zoo, capsys):
        assert rank("nowhere", zoo) == 2
        assert "nowhere" in capsys.readouterr().err
        assert rank(target, "nowhere.yaml") == 2
        assert "nowhere.yaml" in capsys.readouterr().err

    def test_an_output_folder_that_cannot_be_written_is_known_before_the_work(self, target, zoo, capsys, monkeypatch):
        monkeypatch.setattr("transferscope.verbs.rank.rank.answer", None)
        with open("occupied", "w", encoding="utf-8") as file:
            file.write("a file")
        assert rank(target, zoo, "-o", "occupied") == 2
        assert "-o" in capsys.readouterr().err

    def test_factories_need_trust(self, target, zoo, capsys):
        assert run(["rank", "--target", str(target), "--sources", str(zoo)]) == 2
        assert "--trust-code" in capsys.readouterr().err

    @pytest.mark.usefixtures("unsaved")
    def test_text_files_among_the_images_are_a_warning(self, target, zoo, capsys):
        (target / "red" / "notes.txt").write_text("not an image")
        assert rank(target, zoo, "--format", "json") == 0
        out, err = capsys.readouterr()
        assert "notes.txt" in err
        json.loads(out)

    @pytest.mark.usefixtures("unsaved")
    def test_what_factories_print_does_not_mix_with_the_results(self, target, zoo, tmp_path, capfd):
        path = tmp_path / "nets.py"
        path.write_text(path.read_text() + "import os\nprint('python says hello')\nos.write(1, b'so does C\\n')\n")
        assert rank(target, zoo, "--format", "json") == 0
        out, err = capfd.readouterr()
        json.loads(out)
        assert "python says hello" in err
        assert "so does C" in err
        assert run(["layers", "first", "--sources", str(zoo), "--trust-code", "--format", "json"]) == 0
        json.loads(capfd.readouterr().out)

    def test_an_interrupt_that_a_library_wrapped_ends_with_130(self, target, zoo, capsys, monkeypatch):
        def wrapped(*_args, **_options):
            raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

        monkeypatch.setattr("transferscope.verbs.rank.rank.answer", wrapped)
        assert rank(target, zoo) == 130
        assert "Interrupted" in capsys.readouterr().err

    def test_output_that_cannot_be_written_is_no_bug(self, target, zoo, capsys, monkeypatch):
        def full(*_args, **_options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("transferscope.verbs.rank.rank.answer", full)
        assert rank(target, zoo) == 1
        err = capsys.readouterr().err
        assert "No space left on device" in err
        assert "bug" not in err

    @pytest.mark.parametrize("form", ["table", "csv"])
    def test_a_reader_that_has_seen_enough_is_no_error(self, form):
        # By the quickest of the verbs that print tables.
        np.savez("features.npz", features=np.eye(6), labels=np.arange(6) % 2)
        reading, writing = os.pipe()
        os.close(reading)
        code = "from transferscope.cli import main; main()"
        finished = subprocess.run(
            [sys.executable, "-c", code, "score", "features.npz", "--measure", "logme", "--format", form],
            stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
        os.close(writing)
        assert (finished.returncode, finished.stderr) == (0, "")

    def test_an_unexpected_error_is_one_sentence_and_debug_shows_the_traceback(self, target, zoo, capsys, monkeypatch):
        def bug(*_args, **_options):
            raise ZeroDivisionError("oops")

        monkeypatch.setattr("transferscope.verbs.rank.rank.answer", bug)
        assert rank(target, zoo) == 1
        err = capsys.readouterr().err
        assert "ZeroDivisionError: oops" in err
        assert "Traceback" not in err
        monkeypatch.setenv("TRANSFERSCOPE_DEBUG", "1")
        assert rank(target, zoo) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_ctrl_c_ends_with_130_and_leaves_no_half_written_file(self, target, zoo, tmp_path):
        # A shell that runs the tests in the background has it ignored.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{heard}; from transferscope.cli import main; main()"
        arguments = ["--target", str(target), "--sources", str(zoo), "--trust-code", "--device", "cpu", "-o", "out"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, "rank", *arguments, "--reference-epochs", "100000"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not (tmp_path / "out").is_dir() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)  # of training
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert out == ""
        assert "Traceback" not in err
        assert "Interrupted" in err
        assert [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")] == []
        assert visible(tmp_path / "out") == set()


class TestOtherVerbs:
    def test_help_of_every_verb(self, capsys):
        assert run(["--help"]) == 0
        overview = capsys.readouterr().out
        for verb in VERBS:
            assert verb in overview
            assert run([verb, "--help"]) == 0
            assert "Example" in capsys.readouterr().out

    def test_version_and_unknown_verb(self, capsys):
        import transferscope

        assert run(["--version"]) == 0
        assert transferscope.__version__ in capsys.readouterr().out
        assert run(["rnak"]) == 2
        assert "rnak" in capsys.readouterr().err

    def test_validate_lists_every_problem_with_its_line(self, zoo, capsys):
        assert run(["validate", str(zoo)]) == 0
        assert "2 sources" in capsys.readouterr().out
        text = zoo.read_text().replace("checkpoint:", "chekpoint:").replace("{size: 16}", "{size: -1}", 1)
        zoo.write_text(text)
        assert run(["validate", str(zoo)]) == 2
        err = capsys.readouterr().err
        assert "zoo.yaml:6" in err
        assert "zoo.yaml:7" in err
        assert "checkpoint" in err

    def test_validate_reports_wrong_values_and_missing_things_in_one_pass(self, zoo, capsys):
        text = (
            zoo.read_text()
            .replace("net.safetensors", "neet.safetensors", 1)
            .replace("nets.py:build", "nets.py:biuld", 1)
        )
        zoo.write_text(text + "    layerz: auto\n")
        assert run(["validate", str(zoo)]) == 2
        err = capsys.readouterr().err
        for expected in ("zoo.yaml:5", "'biuld' (did you mean 'build'?)", "zoo.yaml:6", "net.safetensors", "layerz"):
            assert expected in err

    def test_validate_reports_missing_files(self, zoo, capsys):
        os.remove("net.safetensors")
        assert run(["validate", str(zoo)]) == 2
        assert "zoo.yaml:6" in capsys.readouterr().err

    def test_validate_says_whether_checkpoints_fit(self, zoo, capsys, tmp_path):
        assert run(["validate", str(zoo)]) == 0
        out, err = capsys.readouterr()
        assert "2 sources, no problems: first, second" in out
        assert "The checkpoints of first were not checked: factories only run with --trust-code" in err
        assert run(["validate", str(zoo), "--trust-code"]) == 0
        assert capsys.readouterr().err == ""
        save_file(CompactResNet(3, width=5).state_dict(), tmp_path / "net.safetensors")
        assert run(["validate", str(zoo), "--trust-code"]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.search(
            r"zoo.yaml:6: sources\[0\] \(first\)\.checkpoint: .*stem\.0\.weight: network \(4, 3, 3, 3\)", err
        )

    def test_layers_need_no_weights(self, zoo, capsys, tmp_path):
        command = ["layers", "first", "--sources", str(zoo), "--trust-code", "--format", "csv"]
        assert run(command) == 0
        listed = capsys.readouterr().out
        (tmp_path / "net.safetensors").write_bytes(b"nothing")
        assert run(command) == 0
        assert capsys.readouterr().out == listed

    def test_layers_in_three_formats(self, zoo, capsys):
        command = ["layers", "first", "--sources", str(zoo), "--trust-code"]
        assert run(command) == 0
        assert "blocks.5" in capsys.readouterr().out
        assert run([*command, "--format", "json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["depth"] for row in rows] == list(range(1, 9))
        assert run([*command, "--all", "--format", "csv"]) == 0
        names = [row["layer"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
        assert "blocks.0.conv1" in names

    def test_layers_of_a_network_that_fails_blames_the_network(self, zoo, capsys, tmp_path):
        (tmp_path / "nets.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(7, 2)\n")
        zoo.write_text(zoo.read_text().replace("    checkpoint: net.safetensors\n", ""))
        assert run(["layers", "first", "--sources", str(zoo), "--trust-code"]) == 1
        err = capsys.readouterr().err
        assert "first" in err
        assert "it takes inputs of 7 features, not 16" in err
        assert "bug" not in err

    def test_layers_whose_flops_are_unknown(self, zoo, capsys, tmp_path):
        (tmp_path / "nets.py").write_text(
            "import torch\nfrom torch import nn\nfrom transferscope.networks import CompactResNet\n"
            "class Turned(nn.Module):\n    def forward(self, x):\n        return torch.linalg.matrix_exp(x)\n"
            "def build():\n    return nn.Sequential(nn.Conv2d(3, 4, 1), Turned(), nn.Conv2d(4, 2, 1))\n"
        )
        zoo.write_text(zoo.read_text().replace("    checkpoint: net.safetensors\n", ""))
        command = ["layers", "first", "--sources", str(zoo), "--trust-code", "--all"]
        assert run([*command, "--format", "json"]) == 0
        out, err = capsys.readouterr()
        assert [row["flops"] for row in json.loads(out)] == [2 * 16 * 16 * 12, None, None]
        assert "FLOPs are unknown: how many aten::linalg_matrix_exp takes" in err
        assert run(command) == 0
        assert capsys.readouterr().out.count("unknown") == 2

    def test_layers_of_an_unknown_source(self, zoo, capsys):
        assert run(["layers", "third", "--sources", str(zoo), "--trust-code"]) == 2
        assert "'first', 'second'" in capsys.readouterr().err


class TestDemo:
    @pytest.fixture
    def short(self, monkeypatch):
        """Draw few pictures, and train for one epoch."""
        from transferscope.protocols import finetuning
        from transferscope.protocols.training.recipe import Recipe
        from transferscope.verbs.demo import make

        for name, count in {"PER_CLASS": 10, "_PER_LETTER": 2, "_PER_GRATING": 2, "_RECIPE": Recipe(epochs=1)}.items():
            monkeypatch.setattr(make, name, count)
        monkeypatch.setattr(scratch, "reference_recipe", lambda *_asked: Recipe(epochs=1))
        monkeypatch.setattr(
            finetuning, "recipes", lambda: dict.fromkeys(("reinit", "finetune", "defrost"), Recipe(epochs=1))
        )

    @pytest.mark.usefixtures("undrawn")
    def test_demo_ranks_checks_its_answer_and_is_remembered(self, short, capsys, tmp_path, request):
        assert run(["demo", "-o", "a demo"]) == 0
        out, err = capsys.readouterr()
        assert "$ transferscope rank --target 'a demo/target' --sources 'a demo/zoo.yaml' --trust-code" in err
        assert "Open a demo/results/report.html in a browser." in err
        assert err.splitlines()[-1].startswith("$ transferscope transfer --target 'a demo/target' --sources")
        for name in ("letter-groups", "gratings", "random-labels", "scratch"):
            assert name in out
        assert (tmp_path / "a demo" / "results" / "ranking.json").is_file()
        classes = {path.name for path in (tmp_path / "a demo" / "target").iterdir()}
        assert classes == {"beta", "gamma", "delta", "zeta", "theta", "lambda", "xi", "pi", "sigma", "psi"}

        checked = pd.read_csv(tmp_path / "a demo" / "checked.csv")
        ranked = pd.read_csv(tmp_path / "a demo" / "results" / "ranking.csv").query("source != 'scratch'")
        assert list(checked["source"].iloc[[0, -1]]) == list(ranked["source"].iloc[[0, -1]])
        assert list(checked["expected"].iloc[[0, -1]]) == list(ranked["expected_accuracy"].iloc[[0, -1]])
        np.testing.assert_array_equal(checked["measured"] * 20 % 1, 0)  # 20 of 100 images are left to test on
        assert "Trained on the 80 images that rank looked at, tested on 20 others" in " ".join(out.split())

        request.getfixturevalue("unsaved")
        assert run(["demo", "-o", "a demo"]) == 0
        again, err = capsys.readouterr()
        assert again == out
        assert "used again" in err
        assert "cache" in err

    def test_a_demo_that_was_interrupted_or_lost_a_file_starts_over(self, short, monkeypatch, tmp_path):
        from transferscope.verbs.demo import make

        real, told = make._train_source, []

        def interrupted(path, *rest):
            if path.name.startswith("gratings"):
                raise KeyboardInterrupt
            return real(path, *rest)

        monkeypatch.setattr(make, "_train_source", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make.make_demo(tmp_path, progress=False, say=str)
        monkeypatch.setattr(make, "_train_source", real)
        make.make_demo(tmp_path, progress=False, say=told.append)
        all_of_it = ["Drew", "Trained", "Trained", "Trained"]
        assert [line.split()[0] for line in told] == all_of_it
        make.make_demo(tmp_path, progress=False, say=told.append)
        assert "used again" in told[-1]
        (tmp_path / "gratings.safetensors").unlink()
        make.make_demo(tmp_path, progress=False, say=told.append)
        assert [line.split()[0] for line in told[-4:]] == all_of_it

    def test_a_folder_with_other_files_is_left_alone(self, capsys, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("precious")
        assert run(["demo", "-o", "mine"]) == 2
        assert "choose another one with -o" in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
