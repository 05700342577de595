"""Networks of transformers and open_clip through the verbs: a classifier, and towers that have none."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_models import save_open_clip, save_transformers

import transferscope as ts
from transferscope.cli import cli
from transferscope.errors import TransferscopeWarning
from transferscope.networks.loading import load_network
from transferscope.protocols.scratch import reference_recipe

pytest.importorskip("transformers")
pytest.importorskip("open_clip")

SHORT = replace(reference_recipe(), epochs=1, min_steps=1)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    for name in ("vit", "dinov2-registers"):
        save_transformers(name, folder)
    save_open_clip("vit", folder / "clip")
    (folder / "zoo.yaml").write_text(
        "version: 1\nsources:\n"
        "  - {name: vit, loader: transformers, model: vit}\n"
        "  - {name: dino, loader: transformers, model: dinov2-registers}\n"
        "  - {name: clip, loader: open_clip, model: ./clip/vit}\n"
    )
    return folder / "zoo.yaml"


def run(*arguments):
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_validate_and_layers(zoo, quiet):
    assert "no problems: vit, dino, clip" in run("validate", zoo)
    stages = json.loads(run("layers", "dino", "--sources", zoo, "--format", "json"))
    assert [stage["layer"] for stage in stages] == [
        "embeddings", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2", "layernorm",
    ]  # fmt: skip


def test_rank_scores_them_and_knows_who_has_a_classifier(zoo, digits):
    images, labels = digits
    target = (images[:80], labels[:80])
    with pytest.warns(TransferscopeWarning, match="image tower without a classifier"):
        ranking = ts.rank(target, zoo, recipe=SHORT, scores=["logme", "leep"], progress=False)
    assert ranking.failed == ()
    leep = ranking.scores["leep"].to_series()
    assert np.isfinite(leep["vit"])
    assert np.isnan(leep["dino"])
    assert np.isnan(leep["clip"])
    loaded = ts.load_target(target)
    network = load_network(ts.load_zoo(zoo)["vit"])
    with torch.no_grad():
        logits = network.module(torch.stack([network.transform(loaded.image(i)) for i in range(80)])).logits
    expected = ts.transferability.leep(torch.softmax(logits.double(), 1).numpy(), loaded.labels)
    assert leep["vit"] == pytest.approx(expected, abs=1e-5)


def test_measure_trains_them(zoo, digits, tmp_path):
    images, labels = digits
    result = ts.measure(
        (images[:120], labels[:120]), zoo, protocols=("truncate", "reinit", "finetune", "defrost", "scratch"),
        depths=(2,), samples_per_class=[4], seeds=1, epochs=1, min_steps=2, test_samples=20, progress=False,
        output=tmp_path / "out",
    )  # fmt: skip
    runs = result.runs
    assert set(runs["status"]) == {"done"}
    assert {(row.source, row.protocol) for row in runs.itertuples()} == {
        (source, protocol)
        for source in ("vit", "dino", "clip")
        for protocol in ("truncate", "reinit", "finetune", "defrost", "scratch")
    }


def test_an_architecture_of_its_own_is_a_reference(zoo, digits):
    images, labels = digits
    ranking = ts.rank((images[:80], labels[:80]), zoo, reference="own", recipe=SHORT, progress=False)
    assert ranking.failed == ()


@pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")  # two steps teach nothing
def test_parameters_follow_a_tower_as_it_is_fine_tuned(zoo, digits):
    images, labels = digits
    source = ts.load_zoo(zoo)
    study = ts.parameters.measure(
        (images[:60], labels[:60]), [source["dino"], source["vit"]], epochs=1, seeds=1, samples_per_class=[4],
        test_samples=12, redraws=1, progress=False,
    )  # fmt: skip
    assert {"dino", "vit"} <= set(study.table["source"])
