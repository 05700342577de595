"""Every image runs through every source once, whichever verbs ask for its features and in whichever order."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
import torch

import transferscope as ts
from transferscope.activations import features, timing
from transferscope.activations.repeatability import Repeatability
from transferscope.data.images import Transform
from transferscope.protocols.cutting.dividing import trial_images
from transferscope.protocols.training.recipe import Recipe
from transferscope.verbs.advise import costs
from transferscope.verbs.advise.costs import Timer

# That so small a target is like none that was measured.
pytestmark = pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")

SOURCES = ("narrow", "wide")
TRANSFORM = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
FACTORY = """
import hashlib
import os
from transferscope.networks import CompactResNet

class Counted(CompactResNet):
    def forward(self, x):
        if "TRAINING" not in os.environ:
            with open(f"{self.name}.txt", "a") as file:
                file.writelines(hashlib.sha256(image.detach().numpy().tobytes()).hexdigest() + "\\n" for image in x)
        return super().forward(x)

def build(name, width):
    net = Counted(5, width=width)
    net.name = name
    return net
"""


@pytest.fixture(autouse=True)
def house(home, tmp_path, monkeypatch):
    """Give each test a zoo and a working folder of its own, and no more timing than is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "_SECONDS", 0.0)
    monkeypatch.setattr("transferscope.verbs.advise.advise._SIZES", 3)
    monkeypatch.setattr(timing, "_SECONDS", 0.0)
    # Four of the images run twice more, to see whether a network gives the same again.
    monkeypatch.setattr(features, "repeatability", lambda *_: Repeatability())
    train = Timer.training

    def training(*args):
        """Train for a few steps, to learn what that costs: no features, and not counted."""
        with monkeypatch.context() as patch:
            patch.setenv("TRAINING", "yes")
            return train(*args)

    monkeypatch.setattr(Timer, "training", training)
    (tmp_path / "nets.py").write_text(FACTORY)
    entries = [
        {
            "name": name, "loader": "python", "factory": "nets.py:build", "kwargs": {"name": name, "width": width},
            "transform": TRANSFORM,
        }
        for name, width in zip(SOURCES, (4, 6), strict=True)
    ]  # fmt: skip
    (tmp_path / "zoo.yaml").write_text(json.dumps({"version": 1, "sources": entries}))
    return tmp_path


@pytest.fixture
def target():
    labels = np.arange(24) % 2
    images = np.random.default_rng(0).integers(0, 160, (24, 12, 12, 3), dtype=np.uint8)
    images[np.arange(24), ..., labels] += 20
    return ts.load_target((images, labels))


OPTIONS = {"device": "cpu", "progress": False, "trust_code": True}


def rank(target, scores="all", **options):
    return ts.rank(target, "zoo.yaml", recipe=Recipe(epochs=1), scores=scores, **OPTIONS, **options)


def advise(target, **options):
    return ts.advise(target, "zoo.yaml", recipe=Recipe(epochs=1), **OPTIONS, **options)


def measure(target, folder="measured", **options):
    return ts.measure(
        target, "zoo.yaml", folder, protocols=["truncate"], samples_per_class=["all"], seeds=1, **OPTIONS, **options
    )


def digests(images):
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]


def passes(house, target):
    """Count how often each image went through each source, and return what else did."""
    known = digests(Transform(16, (0.5,) * 3, (0.25,) * 3)(target.image(index)) for index in range(len(target)))
    assert len(set(known)) == len(target)
    counts, others = {}, set()
    for source in SOURCES:
        file = house / f"{source}.txt"
        seen = Counter(file.read_text().split() if file.exists() else [])
        counts[source] = [seen[image] for image in known]
        others |= seen.keys() - set(known)
    return counts, others


def forget(house):
    for source in SOURCES:
        (house / f"{source}.txt").unlink(missing_ok=True)


FEW = ("logme", "leep")  # of features and of probabilities, as all are
ONCE = {source: [1] * 24 for source in SOURCES}
NEVER = {source: [0] * 24 for source in SOURCES}


def test_rank_then_advise_then_measure_run_each_image_through_each_source_once(house, target):
    zeros = torch.zeros(1, 3, 16, 16)
    # What stages, shapes and operations are found with, and by what a network can be adapted.
    black = digests(torch.cat([zeros, trial_images(zeros)]))
    rank(target)
    assert passes(house, target) == (ONCE, set(black))
    advise(target)
    measure(target)
    counts, others = passes(house, target)
    assert counts == ONCE
    # `advise` and `measure` are timed on noise: 24 images in a batch as in the target, 64 as asked for, and one.
    noise = [torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)) for n in (24, 64, 1)]
    assert others == {*black, *digests(torch.cat(noise))}


def test_measure_then_advise_then_rank_do_too_with_another_seed(house, target):
    measure(target, seed=1)
    assert passes(house, target)[0] == ONCE
    advise(target, seed=1)
    rank(target, seed=1)
    assert passes(house, target)[0] == ONCE


def test_scoring_arrays_runs_no_network(house, target, monkeypatch):
    rank(target)
    before = passes(house, target)

    def never(self, *_args, **_options):
        raise AssertionError(f"{type(self).__name__} was run")

    monkeypatch.setattr(torch.nn.Module, "__call__", never)
    with pytest.raises(AssertionError, match="Identity was run"):
        torch.nn.Identity()(torch.zeros(1))
    features = np.stack([np.asarray(target.image(index), float).mean((0, 1)) for index in range(len(target))])
    table = ts.score({"colours": features}, target.labels, source_probabilities=np.full((24, 4), 0.25))
    assert table.notna().all(axis=None)
    assert passes(house, target) == before


def test_a_verb_runs_only_the_images_that_others_have_not(house, target):
    rank(target, FEW, samples=10)
    assert {source: sum(counts) for source, counts in passes(house, target)[0].items()} == {"narrow": 10, "wide": 10}
    measure(target)
    rank(target, FEW, samples=16)
    assert passes(house, target)[0] == ONCE
    forget(house)
    rank(target, FEW, samples=10, batch_size=3)
    measure(target, "again", batch_size=3)
    assert passes(house, target)[0] == NEVER


def test_results_are_those_without_a_cache(house, target, monkeypatch):
    after_nothing = rank(target)
    measured = measure(target)
    assert measured.runs["status"].tolist() == ["done"] * len(measured.runs)
    again = rank(target)
    assert again.to_json() == after_nothing.to_json()
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(house / "other home"))
    measured_first = measure(target, "other")
    after_measure = rank(target)
    np.testing.assert_allclose(measured_first.runs["accuracy"], measured.runs["accuracy"], atol=1e-5)
    for name in after_nothing.scores:
        one, other = after_nothing.scores[name], after_measure.scores[name]
        if one.dtype.kind == "f":
            np.testing.assert_allclose(other, one, atol=1e-5, err_msg=str(name))
        else:
            assert (one == other).all()
