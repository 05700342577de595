"""Help, examples, completion after TAB, and the command as it was typed; none of it may load anything heavy."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
from click.shell_completion import ShellComplete

from transferscope.cli import VERBS, cli, options, rank, run


@pytest.fixture(autouse=True)
def zoo(quiet_house):
    Path("my zoo.yaml").write_text("version: 1\nsources:\n- {name: birds}\n- {name: big insects}\n- {name: bats}\n")
    Path("zoo.yaml").write_text("version: 1\nsources:\n- {name: plain}\n- {name: bare}\n")


def verb(name):
    return cli.get_command(click.Context(cli), name)


def examples(command):
    return re.findall(r"^ +(transferscope .*)$", command.epilog.partition("Completion")[0], re.MULTILINE)


def complete(*words):
    """Return what is offered for the last word, as value and kind."""
    *before, incomplete = words
    found = ShellComplete(cli, {}, "transferscope", "_TRANSFERSCOPE_COMPLETE").get_completions(before, incomplete)
    return [(item.value, item.type) for item in found]


def offered(*words):
    found = complete(*words)
    assert {kind for _, kind in found} <= {"plain"}
    return [value for value, _ in found]


def test_only_options_that_exist_are_put_into_groups():
    params = {param.name for name in VERBS for param in verb(name).params}
    assert params >= options.HOW | options.WHERE


class TestHelp:
    @pytest.mark.parametrize("name", [None, *VERBS])
    def test_every_example_is_a_command_that_there_is(self, name):
        command = verb(name) if name else cli
        found = examples(command)
        assert found
        for line in found:
            _, used, *arguments = shlex.split(line.partition(" > ")[0])
            assert used == (name or used)
            if "--help" not in arguments:
                verb(used).make_context(used, arguments)  # which parses them and runs nothing

    @pytest.mark.parametrize("name", [name for name in VERBS if name not in ("demo", "score", "cache")])
    def test_one_example_runs_on_what_the_demo_makes(self, name):
        made = "demo/target" if name == "predict" else "demo/zoo.yaml"
        assert any(made in line for line in examples(verb(name)))

    def test_the_overview_says_of_every_verb_what_it_is_for_without_cutting_it_off(self, capsys):
        assert run(["--help"]) == 0
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        width = max(map(len, VERBS))
        for name in VERBS:
            assert f"{name:{width}}  {verb(name).short_help}" in lines

    def test_help_and_completion_load_nothing_heavy(self):
        code = (
            "import os, sys\nfrom transferscope.cli import VERBS, run\n"
            "for words in ([], *([verb] for verb in VERBS)):\n    assert run([*words, '--help']) == 0\n"
            "os.environ.update(_TRANSFERSCOPE_COMPLETE='bash_complete', COMP_CWORD='4',"
            " COMP_WORDS='transferscope layers --sources zoo.yaml p')\n"
            "assert run([]) == 0\n"
            "heavy = {'torch', 'numpy', 'pandas', 'xarray', 'scipy', 'sklearn', 'matplotlib', 'pydantic', 'rich'}\n"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("plain,plain\n")


class TestChoices:
    def test_what_is_written_out_is_what_python_takes(self):
        from transferscope.arrays import backend
        from transferscope.prediction import selection
        from transferscope.protocols import finetuning
        from transferscope.verbs.compare import networks
        from transferscope.verbs.rank import request

        assert {*rank.PROTOCOLS} == {*selection.PROTOCOLS, "any"}
        assert {*rank.OBJECTIVES} == {*selection.OBJECTIVES}
        assert rank.MODES == request.MODES
        choices = {(name, param.name): param.type for name in VERBS for param in verb(name).params}
        for name in ("measure", "parameters"):
            assert tuple(choices[name, "optimiser"].choices) == finetuning.OPTIMISERS
        reductions, *_ = get_args(networks.Reduction)
        for name, literal in (
            ("reduce", reductions), ("estimator", networks.Estimator), ("precision", backend.Precision),
        ):  # fmt: skip
            assert {*choices["compare", name].choices} == {*get_args(literal)}


class TestCompletion:
    def test_verbs_options_and_choices(self):
        assert offered("pa") == ["parameters"]
        assert "--objective" in offered("rank", "--o")
        assert offered("rank", "--objective", "acc") == ["accuracy", "accuracy-per-joule"]

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            (["rank", "--target", "da"], "file"),
            (["rank", "-o", "ou"], "dir"),
            (["parameters", "--target", "one", "--target", "tw"], "file"),
            (["rank", "--sources", "z"], "file"),
            (["validate", "z"], "file"),
            (["score", "f"], "file"),
            (["score", "f.npy", "l"], "file"),
            (["rank", "--reference", "./given.pt"], "file"),
        ],
    )
    def test_places_are_left_to_the_shell(self, words, kind):
        assert complete(*words) == [(words[-1], kind)]

    def test_sources_of_the_zoo_that_was_named(self):
        assert offered("compare", "--sources", "my zoo.yaml", "b") == ["birds", "big insects", "bats"]
        assert offered("compare", "birds", "--sources", "my zoo.yaml", "") == [
            "scratch",
            "birds",
            "big insects",
            "bats",
        ]
        assert offered("layers", "--sources", "zoo.yaml", "") == ["plain", "bare"]
        assert offered("advise", "--sources", "zoo.yaml", "--source", "p") == ["plain"]
        assert offered("rank", "--sources", "zoo.yaml", "--reference", "") == ["compact", "own", "plain", "bare"]

    @pytest.mark.parametrize("text", [None, "", "sources: [", "[]", "sources: 3", "sources: [{loader: timm}, x]", "\0"])
    def test_a_zoo_that_cannot_be_read_has_none_and_says_nothing(self, text, capsys):
        if text is not None:
            Path("odd.yaml").write_text(text)
        assert offered("layers", "--sources", "odd.yaml", "") == []
        assert offered("layers", "") == []
        assert capsys.readouterr() == ("", "")

    def test_measures_and_lists_of_scores(self):
        assert offered("compare", "--measure", "svc") == ["svcca"]
        assert offered("score", "x.npz", "--measure", "near") == ["nearest_mean"]
        assert offered("rank", "--scores", "default,lo") == ["default,logme"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_script_of_each_shell(self, shell, capsys):
        assert run(["--completion", shell]) == 0
        out, err = capsys.readouterr()
        assert f"_TRANSFERSCOPE_COMPLETE={shell}_complete" in out
        assert err == ""

    def test_another_shell_is_wrong_usage(self, capsys):
        assert run(["--completion", "cmd"]) == 2
        assert "'fish'" in capsys.readouterr().err

    @pytest.fixture
    def path(self, tmp_path):
        """A PATH on which the command is."""
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "transferscope"
        # By the shell: the first line of a script cannot name a Python whose path has a space.
        python = f"{shlex.quote(sys.executable)} -c 'from transferscope.cli import main; main()'"
        program.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        program.chmod(0o755)
        return f"{program.parent}:{os.environ['PATH']}"

    def test_bash_completes(self, path):
        script = (
            'eval "$(transferscope --completion bash)"\n'
            'complete -p transferscope\nask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
            '_transferscope_completion transferscope; printf "%s;" "${COMPREPLY[@]}"; echo; }\n'
            'ask transferscope me\nask transferscope layers --sources "\\"my zoo.yaml\\"" bi\n'
        )
        done = self.ran("bash", "-c", script, path=path)
        assert done[-2:] == ["measure;", "birds;big insects;"]

    @pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
    def test_fish_completes(self, path):
        ask = ("complete -C 'transferscope laye'", "complete -C 'transferscope layers --sources zoo.yaml p'")
        script = "; ".join(["transferscope --completion fish | source", *ask])
        assert [line.split("\t")[0] for line in self.ran("fish", "--no-config", "-c", script, path=path)] == [
            "layers",
            "plain",
        ]

    @pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
    def test_zsh_takes_the_script(self, path):
        script = (
            'autoload -Uz compinit; compinit -D -u; eval "$(transferscope --completion zsh)"; '
            "echo $_comps[transferscope]"
        )
        assert self.ran("zsh", "-f", "-c", script, path=path) == ["_transferscope_completion"]

    def ran(self, *command, path):
        env = {**os.environ, "PATH": path}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        return done.stdout.splitlines()


class TestCommandLine:
    @pytest.mark.parametrize(
        "typed",
        [
            "rank --target data --sources zoo.yaml",
            "rank --target 'my data' --sources zoo.yaml --scores logme,leep --scores parc --trust-code --seed 3 -q",
            "compare birds 'big insects' --target d --sources z.yaml --measure rsa --layers-x 'blocks.*' --standardize",
            "measure --target d --sources z.yaml --depths -1 --early-stopping --learning-rates 0.1,0.01",
            "advise --target d --sources z.yaml --tolerance 0.1 -o '$HOME'",
        ],
    )
    def test_it_is_what_was_typed_without_the_defaults(self, typed):
        name, *arguments = shlex.split(typed)
        with cli.make_context("transferscope", [name, *arguments]) as group:
            context = verb(name).make_context(name, arguments, parent=group)
        found = options.command_line(context)
        long = typed.replace(" -q", " --quiet").replace(" -o ", " --output ")
        assert sorted(shlex.split(found)) == sorted(["transferscope", *shlex.split(long)])
        # It means the same again.
        again = verb(name).make_context(name, shlex.split(found)[2:])
        assert again.params == context.params
        assert options.command_line(verb(name).make_context(f"transferscope {name}", shlex.split(found)[2:])) == found
