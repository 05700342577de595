"""Evidence: which rows of an earlier measurement become observations, and which are left out by name."""

import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.prediction.evidence import given_evidence, observations, read_evidence
from transferscope.prediction.observation import Observation
from transferscope.runtime.metrics import R2

LAYERS = {"a": ("stem", "blocks.0", "blocks.1"), "b": ("conv1", "conv2")}
CANDIDATES = {
    ("", 0, "scratch"),
    *((source, depth, protocol) for source, layers in LAYERS.items() for depth in range(1, len(layers) + 1)
      for protocol in ("truncate", "reinit", "finetune", "defrost")),
}  # fmt: skip
FINGERPRINTS = {"a": "1111", "b": "2222"}
PLAIN = {
    "source": "a", "target": "birds", "protocol": "finetune", "depth": 2, "depths": 3, "layer": "blocks.0",
    "samples_per_class": 5, "samples": 20, "seed": 0, "accuracy": 0.5, "balanced_accuracy": 0.5, "seconds": 3.0,
    "status": "done",
}  # fmt: skip


def table(*rows):
    return pd.DataFrame([PLAIN | row for row in rows])


@pytest.fixture
def folder(tmp_path):
    """Write a measurement: its rows and, of a `target_hash`, what `measure` writes beside them."""

    def write(*rows, target_hash="abcd", n_test=200, sources=FINGERPRINTS):
        table(*rows).to_csv(tmp_path / "runs.csv", index=False)
        if target_hash is not None:
            about = {"name": "birds", "hash": target_hash}
            settings = {"target": about, "options": {}, "sources": sources}
            (tmp_path / "measure.json").write_text(json.dumps(settings))
            if n_test is not None:
                (tmp_path / "measurement.json").write_text(json.dumps({"target": about | {"n_test": n_test}}))
        return tmp_path

    return write


def observed(*evidence, **more):
    about = {
        "target": "birds",
        "target_hash": "abcd",
        "layers": LAYERS,
        "candidates": CANDIDATES,
        "fingerprints": FINGERPRINTS,
    }
    return observations(read_evidence(evidence), **(about | more))


def test_an_apostrophe_before_a_formula_is_not_part_of_a_name(folder):
    path = folder({"source": "'=a"}, {"source": "'b"}) / "runs.csv"
    assert read_evidence([path])[0].rows["source"].tolist() == ["=a", "'b"]


def test_a_row_becomes_an_observation(folder):
    path = folder({}) / "runs.csv"
    expected = Observation(
        source="a", depth=2, protocol="finetune", samples=20, accuracy=0.5, tested=200, draws=1, seconds=3.0,
        origin="evidence",
    )  # fmt: skip
    assert observed(path) == [expected]
    assert observed(path.parent) == [expected], "the folder will do"
    assert observed(str(path), path) == [expected], "the same run twice is one draw"


def test_rows_of_numbers_count_by_their_own_metric(folder):
    path = folder({"r2": -0.25}) / "runs.csv"
    plain = pd.read_csv(path).drop(columns=["accuracy", "balanced_accuracy"])
    with pytest.warns(TransferscopeWarning, match="is called 'birds' too"):
        (found,) = observed(plain, metric=R2)
    assert (found.accuracy, found.tested) == (-0.25, 1), "how many were tested on cannot be told from an R²"
    (found,) = observed(path, metric=R2, worth=0.5)
    assert (found.accuracy, found.tested, found.place) == (-0.25, 100, pytest.approx(-math.log(1.25)))


def test_draws_are_averaged_and_counted_and_sizes_kept_apart(folder):
    rows = [{"seed": seed, "accuracy": value} for seed, value in enumerate((0.5, 0.6, 0.7))]
    rows += [{"samples": 40, "samples_per_class": 10, "accuracy": 0.8}]
    first, second = observed(folder(*rows))
    assert (first.samples, first.draws, first.accuracy) == (20, 3, pytest.approx(0.6))
    assert (second.samples, second.draws, second.accuracy) == (40, 1, 0.8)


def test_scratch_is_a_candidate_without_a_source(folder):
    rows = [{"protocol": "scratch", "depth": 0, "layer": "", "source": source} for source in "ab"]
    found = observed(folder(*rows))
    assert [(each.source, each.depth, each.protocol) for each in found] == [("", 0, "scratch")] * 2


def test_what_is_of_no_use_is_named_in_one_warning_with_counts(folder):
    rows = [
        {},
        {"protocol": "fne", "layer": "all", "depth": 3},
        {"protocol": "toptuning"},
        {"protocol": "surgical", "depth": 3, "layer": "blocks.1"},
        {"status": "failed: too hot", "accuracy": math.nan},
        {"status": "failed: too hot", "accuracy": math.nan, "seed": 1},
        {"source": "c"},
        {"layer": "blocks.7", "depth": 2},
        {"depth": 9},
        {"depth": 0, "layer": "", "protocol": "defrost"},
        {"accuracy": 1.5, "depth": 3, "layer": "blocks.1"},
        {"accuracy": math.nan, "depth": 3, "layer": "blocks.1"},
        {"samples": -4},
    ]
    with pytest.warns(TransferscopeWarning) as caught:
        found = observed(folder(*rows))
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith("12 of 13 rows of evidence are left out: ")
    for reason in (
        "2 whose layer is not the one at that depth", "1 that nothing is expected of",
        "3 with numbers that cannot be", "2 that failed",
        "1 of a protocol that is no candidate, fne", "1 of a protocol that is no candidate, toptuning",
        "1 of a protocol that is no candidate, surgical", "1 of a source that is not ranked, c",
    ):  # fmt: skip
        assert reason in text
    assert [(each.source, each.depth) for each in found] == [("a", 2)]


def test_the_hash_decides_which_target_it_is_and_without_one_the_name(folder):
    with pytest.warns(TransferscopeWarning, match="^1 of 1 rows of evidence are left out: 1 of another target, birds$"):
        assert observed(folder({}, target_hash="other")) == []
    assert len(observed(folder({"target": "renamed"}))) == 1, "the same images by another name"
    rows = table({}, {"target": "planes", "seed": 1})
    with pytest.warns(
        TransferscopeWarning,
        match=r"1 of another target, planes\. 1 rows of evidence count because their target is called 'birds' too",
    ):
        assert len(observed(rows)) == 1


def test_a_network_that_has_changed_is_another(folder):
    with pytest.warns(TransferscopeWarning, match="1 of another network by the name of b"):
        found = observed(folder({}, {"source": "b", "layer": "conv2"}, sources={"a": "1111", "b": "older"}))
    assert [each.source for each in found] == ["a"]


def test_one_run_with_two_accuracies_contradicts_itself(folder):
    rows = [{"accuracy": 0.2}, {"accuracy": 0.9}, {"accuracy": 0.9, "seed": 1}, {"depth": 3, "layer": "blocks.1"}]
    with pytest.warns(TransferscopeWarning, match="3 whose accuracies contradict each other"):
        found = observed(folder(*rows))
    assert [each.depth for each in found] == [3]
    # Kernels of two devices differ by little.
    (one,) = observed(folder({"accuracy": 0.50}, {"accuracy": 0.52}))
    assert (one.accuracy, one.draws) == (0.52, 1)


def test_images_tested_on_are_at_least_what_the_accuracies_are_shares_of(folder):
    rows = [{"accuracy": 7 / 24}, {"accuracy": 5 / 36, "seed": 1}]
    (one,) = observed(folder(*rows, n_test=None))
    assert one.tested == np.lcm(24, 36)
    (one,) = observed(folder(*({"accuracy": math.sqrt(0.1 * k), "seed": k} for k in range(1, 6)), n_test=None))
    assert one.tested == 1, "a share of no number of images"
    folder({"accuracy": 0.25}, n_test=500)
    (tmp := folder({"accuracy": 0.25}) / "measurement.json").write_text('{"target": {"hash": "else", "n_test": 9}}')
    assert observed(tmp.parent)[0].tested == 4, "the result of another measurement"


def test_names_that_look_like_missing_values_are_names(folder):
    path = folder({"source": "NA", "target": "nan", "layer": "None"}, sources={})
    (one,) = observed(path, layers={"NA": ("x", "None")}, candidates={("NA", 2, "finetune")}, target="nan")
    assert (one.source, one.depth) == ("NA", 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"runs\.csv cannot be read \(No such file or directory\)"),
        (b"", "is none: No columns to parse"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is none: 'utf-8' codec"),
        (b"a,b\n1,2\n", "is none: there is no column source, target, protocol, layer, status, depth, samples, accur"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "runs.csv").write_bytes(content)
    with pytest.raises(InputError, match=f"Expected `evidence` to be a runs.csv as `measure` writes it, but .*{said}"):
        read_evidence([tmp_path / "runs.csv"])


def test_one_or_several_may_be_given(tmp_path):
    rows = table({})
    assert given_evidence(None) == ()
    assert given_evidence("runs.csv") == ("runs.csv",)
    assert given_evidence(rows)[0] is rows
    assert given_evidence(["a.csv", tmp_path]) == ("a.csv", tmp_path)
    for wrong in (3, [3], {"a": 1}):
        with pytest.raises(InputError, match=r"`evidence` to be the path of a runs\.csv"):
            given_evidence(wrong)


def test_it_says_what_was_read(folder):
    (one,) = read_evidence([folder({}, {"seed": 1})])
    record = one.record()
    assert record["rows"] == 2
    assert len(record["sha256"]) == 64
    assert read_evidence([table({})])[0].record()["sha256"] != read_evidence([table({"seed": 4})])[0].record()["sha256"]


def test_reading_needs_no_torch():
    code = "import sys, transferscope.prediction.evidence; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
