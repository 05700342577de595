"""Networks that users have, through every verb: wrapped or frozen, that take no empty batch, without gradients."""

import io
import json
import warnings

import numpy as np
import pytest
import torch
from rich.console import Console

import transferscope as ts
from transferscope.errors import TransferscopeWarning
from transferscope.protocols.training.recipe import Recipe
from transferscope.report.terminal.ranking import print_ranking
from transferscope.verbs.advise import costs
from transferscope.verbs.layers import list_layers

FACTORY = """
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transferscope.networks import CompactResNet

def plain():
    torch.manual_seed(1)
    return CompactResNet(3, width=4)

def parallel():
    return nn.DataParallel(plain())

def compiled():
    return torch.compile(AveragedModel(plain()), backend="eager")

def inside():
    net = plain()
    net.blocks[2] = torch.compile(net.blocks[2], backend="eager")
    return net

def frozen():
    return plain().requires_grad_(False)

class Full(CompactResNet):
    def forward(self, x):
        assert len(x), "an empty batch"
        return super().forward(x)

def full():
    torch.manual_seed(1)
    return Full(3, width=4)

class NoGrad(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = plain()
        self.tower.head = nn.Identity()
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        with torch.no_grad():
            x = self.tower(x)
        return self.head(x)

def nograd():
    torch.manual_seed(1)
    return NoGrad()
"""
WRAPPED = ("parallel", "compiled", "inside", "frozen", "full")
ALL = ("truncate", "fne", "reinit", "finetune", "defrost", "surgical", "scratch")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def home(once, monkeypatch):
    """One cache for all: they rank the same images, and train the same scratch network for it."""
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(once))
    return once


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transferscope.activations.timing._SECONDS", 0.0)
    monkeypatch.setattr(costs, "_SECONDS", 0.0)
    monkeypatch.setattr("transferscope.verbs.advise.advise._SIZES", 3)
    (tmp_path / "nets.py").write_text(FACTORY)
    return tmp_path


def zoo(*names):
    return [
        {"name": name, "loader": "python", "factory": f"nets.py:{name}", "transform": {"size": 16}} for name in names
    ]


def pictures(n=36):
    labels = np.arange(n) % 3
    images = np.random.default_rng(0).integers(0, 160, (n, 12, 12, 3), dtype=np.uint8)
    images[np.arange(n), ..., labels] += 80
    return images, labels


def rank(*names, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # so few images
        return ts.rank(
            pictures(), zoo(*names), device="cpu", recipe=Recipe(epochs=1), progress=False, trust_code=True, **options
        )


def measure(*names, output="out", **options):
    return ts.measure(
        pictures(), zoo(*names), output,
        **{
            "samples_per_class": (6,), "seeds": 1, "epochs": 1, "min_steps": 0, "depths": (1, -1), "test_samples": 12,
            "device": "cpu", "progress": False, "trust_code": True, **options,
        },
    ).runs  # fmt: skip


def advise(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        return ts.advise(pictures(), zoo(name), device="cpu", recipe=Recipe(epochs=1), progress=False, trust_code=True)


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_is_gone_in_every_verb(folder, name):
    expected = list_layers("plain", ts.load_zoo(zoo("plain")), trust_code=True)
    layers = list_layers(name, ts.load_zoo(zoo(name)), trust_code=True)
    assert layers.equals(expected)
    ranking = rank(name, "plain")
    scores = ranking.scores["logme"]
    np.testing.assert_allclose(scores.sel(source=name), scores.sel(source="plain"), rtol=1e-4)
    assert ranking.scores["layer"].sel(source=name).to_numpy().tolist() == layers.index.tolist()
    assert ranking.left_out == ()
    for early_stopping in (False, True) if name == "inside" else (True,):
        runs = measure(name, output=f"out {early_stopping}", protocols=ALL, early_stopping=early_stopping)
        assert set(runs["status"]) == {"done"}
        assert set(runs["protocol"]) == set(ALL)
        cut_after = runs[runs["protocol"].isin(("truncate", "reinit", "finetune"))]["layer"]
        assert set(cut_after) == {layers.index[0], layers.index[-1]}
    net = ts.cut(ts.load_zoo(zoo(name))[name], 3, "finetune", 3, trust_code=True)
    assert net.layer == layers.index[2]
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_no_verb_shows_a_network_no_images(folder):
    """Beside those of the test above, through which the network goes that takes no empty batch."""
    assert len(advise("full").ways) == 7
    source = ts.load_zoo(zoo("full"))["full"]
    similarity = ts.compare(
        *(ts.cut(source, 0, "defrost", 3, trust_code=True).rest for _ in range(2)), torch.rand(9, 3, 16, 16),
        batch_size=4, device="cpu",
    )  # fmt: skip
    assert np.isfinite(similarity).all()
    initial = {"initial": "drawn.pt"}
    torch.save(ts.cut(source, 0, "scratch", 3, trust_code=True).rest.state_dict(), "drawn.pt")
    torch.save(ts.cut(source, 0, "defrost", 3, trust_code=True).rest.state_dict(), "source.pt")
    entry = zoo("full")[0] | initial | {"checkpoint": "source.pt"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)
        found = ts.parameters.measure(
            pictures(), [entry], samples_per_class=(4,), epochs=1, seeds=1, test_samples=6, device="cpu",
            progress=False, trust_code=True,
        )  # fmt: skip
    assert not found.failed


def test_what_rank_and_advise_recommend_measure_can_do(folder):
    ranking = rank("nograd", "plain")
    expected = ranking.scores["expected_accuracy"].sel(source="nograd")
    possible = expected.notnull()
    depths = ranking.scores.sizes["depth"]
    assert possible.sel(protocol="truncate").all()
    assert not possible.sel(protocol="finetune").any()
    assert np.flatnonzero(possible.sel(protocol="reinit")).tolist() == [depths - 2, depths - 1]
    pick = next(pick for pick in ranking.recommendations if pick.source == "nograd")
    assert pick.protocol != "finetune"
    assert [(entry.source, entry.protocol, entry.everywhere) for entry in ranking.left_out] == [
        ("nograd", "reinit", False), ("nograd", "finetune", True), ("nograd", "defrost", False),
    ]  # fmt: skip

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        runs = measure("nograd", protocols=("truncate", "reinit", "finetune"), depths="all")
    (text,) = [str(each.message) for each in said if "cannot be adapted" in str(each.message)]
    assert text.startswith(f"nograd cannot be adapted by reinit at depth 1-{depths - 2} (no gradient reaches 'tower.")
    assert text.endswith("; these runs are left out")
    assert set(runs["status"]) == {"done"}
    for protocol in ("truncate", "reinit", "finetune"):
        asked = runs.loc[runs["protocol"] == protocol, "depth"].tolist()
        assert asked == (np.flatnonzero(possible.sel(protocol=protocol)) + 1).tolist()

    advice = advise("nograd")
    assert {way.protocol for way in advice.ways} <= {"truncate", "fne", "toptuning", "reinit", "defrost"}
    left_out = {failure.source: failure.error for failure in advice.left_out}
    assert {"finetune", "scratch"} <= set(left_out)
    assert "no gradient reaches 'tower.stem" in left_out["finetune"]


@pytest.mark.usefixtures("bare_page")
def test_what_is_left_out_is_said_everywhere_and_remembered(folder, monkeypatch):
    ranking = rank("nograd", "plain")
    console = Console(record=True, width=200, file=io.StringIO())
    print_ranking(ranking, console)
    assert "Left out: nograd cannot be adapted by reinit at depth 1-" in console.export_text()
    ranking.save("saved")
    page = (folder / "saved" / "report.html").read_text(encoding="utf-8")
    assert "nograd cannot be adapted by reinit at depth 1-" in page
    first, second, third = json.loads((folder / "saved" / "ranking.json").read_text(encoding="utf-8"))["left_out"]
    assert (second["source"], second["protocol"], second["everywhere"]) == ("nograd", "finetune", True)
    assert (third["source"], third["protocol"], third["everywhere"]) == ("nograd", "defrost", False)
    assert first["depths"] == list(range(1, len(first["depths"]) + 1))
    assert ts.load_ranking("saved").left_out == ranking.left_out

    def never(*_args, **_options):
        raise AssertionError("tried again")

    monkeypatch.setattr("transferscope.verbs.possible.possible", never)
    assert rank("nograd", "plain").left_out == ranking.left_out


def test_a_source_that_cannot_do_what_was_asked_for_is_not_ranked_and_says_why(folder):
    said = "no expected accuracy at any depth and is left out of the ranking: nograd cannot be adapted by finetune"
    with pytest.warns(TransferscopeWarning) as warned:
        ranking = ts.rank(
            pictures(), zoo("nograd", "plain"), device="cpu", recipe=Recipe(epochs=1), progress=False, trust_code=True,
            protocol="finetune",
        )  # fmt: skip
    assert any(said in str(each.message) for each in warned)
    assert {pick.source for pick in ranking.recommendations} == {"plain", "scratch"}
