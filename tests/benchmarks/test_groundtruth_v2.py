"""Ground truth v2: the design is as committed, the recipe trains, tables survive a kill."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from groundtruth import check
from groundtruth.v2 import checks, compact, design, frozen, hours, rows, run, seen, targets, trained, zoo
from groundtruth.v2.cells import trainer
from groundtruth.v2.design import Cell
from groundtruth.v2.training import Recipe, augmented, carried_over
from PIL import Image

from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut
from transferscope.protocols.scratch import LARGE
from transferscope.verbs.measure.plan import Run

SMALL = "small-cifar10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Red and blue images, of two classes, under the name of a target."""
    root = tmp_path_factory.mktemp("targets") / "caltech-2"
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 8)):
        for channel, name in ((0, "ketch"), (2, "schooner")):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
                pixels[:, :, channel] += 150
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


@pytest.fixture
def small(monkeypatch):
    """Leave the sources that are part of this repository."""
    entries = [entry for entry in zoo.sources(Path()) if entry["name"].startswith("small-")]
    monkeypatch.setattr(zoo, "sources", lambda _real: entries)


def test_the_committed_design_is_the_one_that_is_drawn():
    sources = [entry["name"] for entry in zoo.sources(Path())]
    drawn = design.draw(sources, zoo.COMPACT, {name: part.sizes for name, part in targets.TARGETS.items()})
    assert design.read() == drawn
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("count", [100, 400])
def test_the_beginning_of_the_design_is_balanced(count):
    cells = pd.DataFrame(design.read()[:count])
    for name, levels in (("source", 10), ("target", 10), ("protocol", 4)):
        counts = cells[name].value_counts()
        assert len(counts) == levels
        assert counts.min() >= 0.4 * counts.mean()
    for protocol, shares in design.SHARES.items():
        assert set(shares) <= set(cells["share"][cells["protocol"] == protocol])


@pytest.mark.parametrize(
    ("protocol", "share", "stages", "depth"),
    [("defrost", 0.0, 19, 0), ("finetune", 0.0, 19, 1), ("reinit", 0.875, 19, 16), ("defrost", 1.0, 6, 6),
     ("reinit", 0.25, 6, 1), ("scratch", 0.0, 7, 0)],
)  # fmt: skip
def test_a_share_of_the_stages_is_a_depth(protocol, share, stages, depth):
    assert Cell("a", "b", protocol, share, 5, 0).depth(stages) == depth


def test_a_target_is_split_class_by_class_and_a_smaller_draw_is_part_of_a_larger():
    members = ["set/"] + [f"set/{name}/{i}.png" for name in "abcde" for i in range(10 if name != "e" else 4)]
    places = targets.split(members, targets.Part("set", 0.3, (5,), False))
    assert len(places) == 44
    assert pd.Series([path.parts[:2] for path in places.values()]).value_counts().to_dict() == {
        **{("train", name): 7 for name in "abcd"}, **{("test", name): 3 for name in "abcd"},
        ("train", "e"): 3, ("test", "e"): 1,
    }  # fmt: skip
    two, three = (
        {path.parts for path in targets.split(members, targets.Part("set", 0.3, (5,), False, count)).values()}
        for count in (2, 3)
    )
    assert len({parts[1] for parts in two}) == 2
    assert two < three
    assert not any(parts[1] == "e" for parts in three)


def test_rates_rise_and_fall():
    recipe = Recipe(warm_up=0.1)
    assert recipe.rate(0, 100) == pytest.approx(0.1)
    assert recipe.rate(9, 100) == recipe.rate(10, 100) == 1
    assert recipe.rate(55, 100) == pytest.approx(0.5)
    assert 0 < recipe.rate(99, 100) < 0.001


def test_steps_are_epochs_within_limits():
    recipe = Recipe(epochs=20, least_steps=300, most_steps=1000, batch_size=32)
    assert [recipe.steps(n) for n in (10, 480, 800, 3440)] == [300, 300, 500, 1000]


def test_crops_lie_within_the_image_and_half_are_mirrored():
    ramp = torch.linspace(0, 1, 32).expand(400, 1, 32, 32)  # from left to right
    draw = torch.Generator().manual_seed(0)
    same = augmented(ramp, Recipe(crop=0.3), False, draw)
    assert (same.diff(dim=3) >= -1e-6).all()
    assert same.min() >= 0
    assert same.max() <= 1
    # The smallest crop has a width of √0.3 times at least √(3/4) of the image.
    width = same[:, 0, 0, -1] - same[:, 0, 0, 0]
    assert 0.45 < width.min() < 0.55
    assert width.max() > 0.95
    mirrored = augmented(ramp, Recipe(crop=0.3), True, draw)[:, 0, 0]
    assert 160 < int((mirrored[:, 0] > mirrored[:, -1]).sum()) < 240


def test_what_is_carried_over_is_told_from_what_is_new(folder, small):
    network = trainer(Path(), folder, Recipe(), "cpu").network(SMALL)
    source = network.module.state_dict()
    found = {
        protocol: carried_over(cut(network, depth, protocol, 2, trust_code=True).divided()[1], source)
        for protocol, depth in (("scratch", 0), ("reinit", 3), ("finetune", 3), ("defrost", 3))
    }
    weights = {name: {key for key in keys if "conv1.weight" in key} for name, keys in found.items()}
    assert weights["scratch"] == weights["reinit"] == set()
    assert {key[-22:] for key in weights["finetune"]} == {f".blocks.{i}.conv1.weight"[-22:] for i in (0, 1)}
    assert {key[-22:] for key in weights["defrost"]} == {f".blocks.{i}.conv1.weight"[-22:] for i in (2, 3, 4)}
    assert not any("head" in key for keys in found.values() for key in keys)


@pytest.mark.parametrize(
    ("protocol", "share"), [("defrost", 0.0), ("defrost", 0.5), ("defrost", 1.0), ("reinit", 1.0), ("finetune", 0.5)]
)
def test_a_cell_is_trained_and_recorded_and_repeats(folder, small, tmp_path, protocol, share):
    cell = Cell(SMALL, "caltech-2", protocol, share, 5, 1)
    first, again = (trainer(Path(), folder, Recipe(epochs=1, least_steps=30), "cpu").row_of(cell) for _ in range(2))
    assert first["status"] == "done"
    assert (first["samples"], first["depths"], first["trials"]) == (10, 6, 1)
    assert first["accuracy"] == again["accuracy"] == 1
    assert first["flops"] == again["flops"] > 0
    path = tmp_path / "runs.csv"
    rows.append(path, [first | {rows.RECIPE: "1"}])
    with path.open("a") as file:
        file.write("small-cifar10,caltech-2,def")  # a kill in the middle of a row
    rows.append(path, [again | {rows.RECIPE: "1"}])
    table = rows.read([path])
    assert list(table["status"]) == ["done"] * 2
    assert list(table["accuracy"]) == [1, 1]


def test_head_only_protocols_are_one_and_the_same_transfer(folder, small):
    results = [
        trainer(Path(), folder, Recipe(epochs=1, least_steps=3), "cpu").row_of(
            Cell(SMALL, "caltech-2", protocol, 1.0, 5, 0)
        )
        for protocol in ("reinit", "defrost")
    ]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["flops"] == results[1]["flops"]


def test_the_compact_network_is_built_and_read_as_its_zoo_entry_says():
    entry = zoo.compact()
    assert compact.build(10)(torch.zeros(2, 3, LARGE, LARGE)).shape == (2, 10)
    assert entry["transform"]["size"] == LARGE
    [source] = load_zoo({"version": 1, "sources": [entry]})
    assert load_network(source, trust_code=True).module(torch.zeros(2, 3, LARGE, LARGE)).shape == (2, 10)


def test_what_checks_ground_truth_v1_runs_draws_that_its_map_does_not_have(folder, tmp_path):
    entries = [entry for entry in zoo.sources(Path()) if entry["name"] == SMALL]
    executor = check._executor(folder, entries, tmp_path / "out")
    layers = [stage.layer for stage in executor.stages(SMALL)]
    first, other = (
        executor.execute([Run(SMALL, folder.name, "truncate", 6, 6, layers[-1], 3, seed)])[0] for seed in (1000, 1001)
    )
    assert (first["status"], first["samples"], other["status"]) == ("done", 6, "done")
    assert executor.setup.drawn is executor.setup.pool
    assert not (tmp_path / "out").exists()


def test_a_mean_difference_is_checked_within_its_noise():
    def compared(**differences):
        of_each = {source: pd.Series(values, dtype=float) for source, values in differences.items()}
        together = pd.concat(of_each, names=["source"]) if of_each else pd.Series(dtype=float)
        return checks._compared("a", together, least=-0.02)

    assert compared().passed is None
    assert compared(a=[-0.01, 0.0, 0.01]) == checks.Check("a", "+0.000 ± 0.006 over 3, from -0.010 to +0.010", True)
    assert not compared(a=[-0.1, -0.1, -0.11]).passed
    one_behind = compared(a=[0.0, 0.1], b=[-0.05, -0.03], c=[-0.02])
    assert one_behind.passed
    assert one_behind.found.endswith("; outside: b -0.040 over 2")


def _broken():
    yield "one"
    raise ValueError("broken")


def test_streams_take_turns_and_one_that_breaks_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hours, "FILE", tmp_path / "hours.csv")
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "trained")
    monkeypatch.setattr(trained, "work", lambda _real, _device: iter(["a", "b", "c"]))
    monkeypatch.setattr(frozen, "work", lambda _real: _broken())
    monkeypatch.setattr(seen, "work", lambda _real: iter(["d"]))
    run.run(Path(), "cpu", None, np.inf)
    assert sorted(line.split(": ")[-1] for line in capsys.readouterr().out.splitlines()) == ["a", "b", "c", "d", "one"]
    assert pd.read_csv(hours.FILE)["stream"].value_counts().to_dict() == {"trained": 3, "frozen": 1, "evidence": 1}


def test_what_is_missing_is_the_design_without_the_runs_of_this_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    cells = design.read()
    first = cells[0]
    row = {
        "source": first.source, "target": first.target, "protocol": first.protocol, "depth": first.depth(6),
        "depths": 6, "layer": "", "samples_per_class": first.samples_per_class, "samples": 10, "seed": first.seed,
        "status": "done",
    }  # fmt: skip
    rows.append(tmp_path / first.target / "runs.csv", [row | {rows.RECIPE: "another"}])
    assert trained.missing() == cells
    rows.append(tmp_path / first.target / "runs.csv", [row | {rows.RECIPE: "1"}])
    assert trained.missing() == cells[1:]
