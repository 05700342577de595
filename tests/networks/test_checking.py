"""What `validate` knows of checkpoints: whether they fit, without weights in memory and without running factories."""

import pytest
import safetensors.torch
import timm
import torch

from transferscope.errors import TransferscopeWarning
from transferscope.networks.checking import check_sources
from transferscope.networks.zoo import load_zoo

pytestmark = pytest.mark.bounds

FACTORY = """\
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
"""


@pytest.fixture
def check(tmp_path):
    def check(*entries, **options):
        lines = [f"  - {{name: s{index}, {entry}}}" for index, entry in enumerate(entries)]
        (tmp_path / "zoo.yaml").write_text("\n".join(["version: 1", "sources:", *lines]))
        return check_sources(load_zoo(tmp_path / "zoo.yaml"), **options)

    return check


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=10).state_dict()


def test_what_fits_is_no_problem(check, weights, tmp_path):
    torch.save({"state_dict": {f"model.{key}": value for key, value in weights.items()}}, tmp_path / "last.ckpt")
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    entry = "loader: timm, model: test_resnet, kwargs: {num_classes: 10}"
    files = ("last.ckpt", "w.safetensors")
    assert check(
        *(f"{entry}, checkpoint: {file}, initial: {file}" for file in files), "loader: timm, model: test_vit"
    ) == (
        [],
        [],
    )


def test_every_source_that_does_not_load_is_told_with_its_line(check, weights, tmp_path):
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    torch.save({"a": weights, "b": {key: value + 1 for key, value in weights.items()}}, tmp_path / "two.pth")
    (tmp_path / "w.npz").write_bytes(b"")
    (tmp_path / "w.pt").write_bytes(b"nothing")
    timm_resnet = "loader: timm, model: test_resnet"
    problems, unchecked = check(
        f"{timm_resnet}, checkpoint: w.safetensors",
        f"{timm_resnet}, checkpoint: w.npz, kwargs: {{num_classes: 10}}",
        f"{timm_resnet}, checkpoint: w.pt",
        f"{timm_resnet}, checkpoint: two.pth, kwargs: {{num_classes: 10}}",
        f"{timm_resnet}, checkpoint: two.pth, kwargs: {{num_clases: 10}}",
        "loader: torchvision, model: raft_small",
        "loader: torchvision, model: resnet18, initial: w.safetensors",
    )
    expected = [
        r"sources[0] (s0).checkpoint: checkpoint",
        r"sources[1] (s1).checkpoint: checkpoint",
        r"sources[2] (s2).checkpoint: checkpoint",
        r"sources[3] (s3).checkpoint: checkpoint",
        r"sources[4] (s4).model: timm cannot build",
        r"sources[5] (s5).model: torchvision does not say",
        r"sources[6] (s6).initial: checkpoint",
    ]
    assert unchecked == []
    assert len(problems) == len(expected)
    for line, (problem, start) in enumerate(zip(problems, expected, strict=True), 3):
        assert f"zoo.yaml:{line}: {start}" in problem
    assert "num_classes: 10" in problems[0]
    assert "must end in one of" in problems[1]
    assert "damaged" in problems[2]
    assert "say which one as checkpoint_key" in problems[3]


def test_a_factory_is_run_only_with_trust_but_its_files_are_read(check, tmp_path):
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    torch.save({"0.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "w.pt")
    entry = 'loader: python, factory: "nets.py:build", transform: {size: 3}'
    entries = [f"{entry}, checkpoint: broken.pt", f"{entry}, checkpoint: w.pt, checkpoint_key: net", entry]
    problems, unchecked = check(*entries, f"{entry}, checkpoint: w.pt")
    assert ["damaged" in problems[0], "nothing under checkpoint_key 'net'" in problems[1]] == [True, True]
    assert (len(problems), unchecked) == (2, ["s0", "s1", "s3"])
    problems, unchecked = check(entry, f"{entry}, checkpoint: w.pt", trust_code=True)
    assert (len(problems), unchecked) == (1, [])
    assert "0.bias" in problems[0]


def test_what_loading_assumes_is_said_beforehand(check, weights, tmp_path):
    torch.save({"model": weights, "model_ema": {key: value + 1 for key, value in weights.items()}}, tmp_path / "w.pt")
    with pytest.warns(TransferscopeWarning, match="source 's0': .*model is taken, not model_ema"):
        check("loader: timm, model: test_resnet, kwargs: {num_classes: 10}, checkpoint: w.pt")


def test_nothing_is_downloaded(check, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    entries = ["loader: timm, model: test_resnet", 'loader: timm, model: "hf-hub:timm/test_resnet"']
    assert check(*entries, "loader: torchvision, model: resnet18") == ([], [])
