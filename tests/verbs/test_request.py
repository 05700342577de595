"""Requests: each argument of a verb is a field, the command line makes the same record, and nothing can change it."""

import dataclasses
import inspect
import json

import pytest

import transferscope as ts
from transferscope.cli import cli
from transferscope.verbs.advise.request import AdviseRequest
from transferscope.verbs.compare.request import CompareRequest
from transferscope.verbs.measure.request import MeasureRequest
from transferscope.verbs.parameters.request import ParametersRequest
from transferscope.verbs.rank.request import RankRequest
from transferscope.verbs.transfer.request import TransferRequest

pytestmark = pytest.mark.bounds

REQUESTS = {
    "rank": (ts.rank, RankRequest),
    "advise": (ts.advise, AdviseRequest),
    "compare": (ts.compare_sources, CompareRequest),
    "measure": (ts.measure, MeasureRequest),
    "parameters": (ts.parameters.measure, ParametersRequest),
    "transfer": (ts.transfer, TransferRequest),
}
# What the command line says in other words: it becomes `recipe`, `progress`, or decides where the answer goes.
OWN_WORDS = {
    "reference_epochs", "reference_budget", "output", "output_format", "quiet", "verbose", "dry_run", "help",
}  # fmt: skip
SMALLEST = {"target": "data", "targets": ["data"], "zoo": "zoo.yaml", "x": "a", "y": "b", "ranking": "out"}


def smallest(request, **more):
    names = {field.name for field in dataclasses.fields(request)}
    return request(**{name: value for name, value in SMALLEST.items() if name in names}, **more)


@pytest.mark.parametrize(("function", "request_class"), REQUESTS.values(), ids=REQUESTS)
def test_every_argument_is_a_field_with_the_same_default(function, request_class):
    arguments = {
        name: dataclasses.MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
    }
    assert arguments == {field.name: field.default for field in dataclasses.fields(request_class)}


@pytest.mark.parametrize("verb", REQUESTS)
def test_every_option_is_a_field(verb):
    options = {param.name for param in cli.get_command(None, verb).params}
    fields = {field.name for field in dataclasses.fields(REQUESTS[verb][1])}
    assert options - OWN_WORDS <= fields
    # What needs Python: objects that no option can name.
    assert fields - options <= {"progress", "recipe", "groups", "executor"} | ({"learning_rates"} & fields)


@pytest.mark.parametrize(("_function", "request_class"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_cannot_be_changed_and_its_settings_are_plain(_function, request_class):
    made = smallest(request_class, seed=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.seed = 4
    settings = made.settings()
    assert settings["seed"] == 3
    assert settings["device"] in ("cpu", "cuda:0")
    assert not {"target", "targets", "zoo", "progress", "trust_code"} & set(settings)
    json.dumps(settings)


def test_help_shows_options_in_groups(capsys):
    from transferscope.cli import run

    assert run(["rank", "--help"]) == 0
    asked, rest = capsys.readouterr().out.split("How it is computed:")
    computed, goes = rest.split("Where it goes:")
    assert "--target" in asked.split("What is asked:")[1]
    assert "--device" in computed
    assert "--output" in goes
    assert "--help" in goes
