"""Architectures that are built again without the zoo: what is kept of each loader, and that nothing else is needed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_models import save_open_clip, save_transformers

from transferscope.data.images import Transform
from transferscope.errors import InputError, SourceError
from transferscope.networks.blueprint import blueprint, compact_source, is_compact, source_of
from transferscope.networks.loading import load_architecture, load_network
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.scratch import compact_network

TRANSFORM = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


def entry(**keys):
    return load_zoo([{"name": "a", "transform": TRANSFORM, **keys}])["a"]


def built_elsewhere(source, folder, *, trust_code=False):
    """Load a source, keep its blueprint in a folder, and return both networks; the entry goes through JSON."""
    network = load_network(source, trust_code=trust_code)
    plan = blueprint(source)
    for name, content in plan.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    again = source_of(json.loads(json.dumps(plan.entry)), folder, network.transform)
    return network, again


def same(network, other):
    shapes = [{key: value.shape for key, value in net.module.state_dict().items()} for net in (network, other)]
    assert shapes[0] == shapes[1]
    assert other.transform == network.transform
    other.module.load_state_dict(network.module.state_dict())
    images = torch.randn(2, *network.transform.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = [net.module(images) for net in (network, other)]
    tensors = [each if isinstance(each, torch.Tensor) else each[0] for each in outputs]
    torch.testing.assert_close(*tensors, rtol=0, atol=0)


def test_a_network_of_timm(tmp_path):
    source = entry(loader="timm", model="test_resnet", kwargs={"pretrained": False, "num_classes": 7})
    network, again = built_elsewhere(source, tmp_path)
    assert blueprint(source).entry == {"loader": "timm", "model": "test_resnet", "kwargs": {"num_classes": 7}}
    same(network, load_architecture(again))


def test_a_network_of_torchvision(tmp_path):
    source = entry(loader="torchvision", model="squeezenet1_1", weights="none", kwargs={"num_classes": 3})
    network, again = built_elsewhere(source, tmp_path)
    same(network, load_architecture(again))


def test_a_factory_comes_with_the_files_that_it_imports(tmp_path):
    ours = tmp_path / "ours"
    (ours / "parts").mkdir(parents=True)
    (ours / "parts" / "__init__.py").touch()
    (ours / "parts" / "sizes.py").write_text("WIDTH = 5\n")
    (ours / "unused.py").write_text("raise RuntimeError\n")
    (ours / "nets.py").write_text(
        "from torch import nn\nfrom parts.sizes import WIDTH\n\ndef build(depth=1):\n"
        "    return nn.Sequential(nn.Conv2d(3, WIDTH, 3), *[nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(depth)])\n"
    )
    source = entry(loader="python", factory=f"{ours / 'nets.py'}:build", kwargs={"depth": 2})
    network, again = built_elsewhere(source, tmp_path / "kept", trust_code=True)
    shutil.rmtree(ours)
    assert sorted(blueprint_files(tmp_path / "kept")) == [
        "code/nets.py", "code/parts/__init__.py", "code/parts/sizes.py",
    ]  # fmt: skip
    with pytest.raises(InputError, match="allow it with --trust-code"):
        load_architecture(again)
    same(network, load_architecture(again, trust_code=True))


def blueprint_files(folder):
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.py")]


@pytest.mark.parametrize("name", ["vit", "convnext", "clip"])
def test_a_model_of_transformers_comes_with_its_configuration(name, tmp_path):
    folder = save_transformers(name, tmp_path / "saved")
    network, again = built_elsewhere(entry(loader="transformers", model=str(folder)), tmp_path / "kept")
    shutil.rmtree(folder)
    assert [path.name for path in (tmp_path / "kept" / "architecture").iterdir()] == ["config.json"]
    same(network, load_architecture(again))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_tower_of_open_clip_comes_with_its_description(name, tmp_path):
    pytest.importorskip("open_clip")
    folder = save_open_clip(name, tmp_path / "saved")
    network, again = built_elsewhere(entry(loader="open_clip", model=str(folder)), tmp_path / "kept")
    shutil.rmtree(folder)
    same(network, load_architecture(again))


def test_the_compact_network_needs_no_file_of_ones_own():
    transform = Transform(size=64, mean=(0.5,), std=(0.25,))
    source = compact_source(4, 2, transform)
    assert is_compact(source)
    assert not is_compact(entry(loader="python", factory="nets.py:CompactResNet"))
    plan = blueprint(source)
    assert (plan.entry["loader"], plan.files) == ("compact", {})
    again = load_architecture(source_of(plan.entry, Path(), transform), trust_code=True)
    expected = compact_network(4, transform).state_dict()
    assert {key: value.shape for key, value in again.module.state_dict().items()} == {
        key: value.shape for key, value in expected.items()
    }


@pytest.mark.parametrize("wrong", [{}, {"loader": "tensorflow"}, {"loader": "timm", "kwargs": 3}, {"loader": "python"}])
def test_what_is_no_architecture(wrong):
    with pytest.raises(InputError, match="Expected the architecture of a network"):
        source_of(wrong, Path(), Transform(**TRANSFORM))


def test_a_factory_that_is_gone(tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        blueprint(entry(loader="python", factory=f"{tmp_path / 'gone.py'}:build"))
