"""From a zoo entry to a network: weights, transforms, factories, fingerprints, and what failures say."""

import inspect
import re
import sys
from urllib.error import URLError

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn

from transferscope.data.images import Transform
from transferscope.errors import InputError, SourceError, TransferscopeWarning
from transferscope.networks.loading import (
    architecture,
    build_untrained,
    fingerprint,
    load_architecture,
    load_network,
    outline,
    source_transform,
)
from transferscope.networks.zoo import load_zoo
from transferscope.runtime.trained import untrained

pytestmark = pytest.mark.bounds

FACTORY = """\
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
"""


def entry(**keys):
    return load_zoo([{"name": "a", **keys}])["a"]


def timm_entry(**keys):
    return entry(**{"loader": "timm", "model": "test_resnet", **keys})


@pytest.fixture
def python_entry(tmp_path):
    def python_entry(code=FACTORY, file="ours.py", **keys):
        (tmp_path / file).write_text(code)
        keys = {"factory": f"{tmp_path / file}:build", "transform": {"size": 8}, **keys}
        return entry(loader="python", **keys)

    return python_entry


def same_weights(module, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in module.state_dict().items())


def test_a_timm_network_with_a_local_checkpoint(tmp_path):
    saved = timm.create_model("test_resnet", num_classes=7)
    safetensors.torch.save_file(saved.half().state_dict(), tmp_path / "w.safetensors")
    source = timm_entry(checkpoint=str(tmp_path / "w.safetensors"), kwargs={"num_classes": 7})
    network = load_network(source)
    assert (network.name, network.source) == ("a", source)
    assert not network.module.training
    assert {(p.dtype, p.device.type) for p in network.module.parameters()} == {(torch.float32, "cpu")}
    assert same_weights(network.module, saved.float())
    # test_resnet as timm registers it: 160 pixels, crop_pct 0.95, so floor(160 / 0.95) = 168
    config = timm.get_pretrained_cfg("test_resnet")
    assert (config.input_size, config.crop_pct) == ((3, 160, 160), 0.95)
    assert network.transform == Transform(160, config.mean, config.std, config.interpolation, resize=168)
    images = torch.zeros(2, 3, 160, 160)
    assert network.module(images).shape == (2, 7)


@pytest.mark.parametrize(
    ("given", "size", "resize", "mean", "interpolation"),
    [
        ({}, 224, 256, (0.485, 0.456, 0.406), "bicubic"),  # floor(224 / 0.875) = 256
        ({"size": 96}, 96, None, (0.485, 0.456, 0.406), "bicubic"),
        ({"size": 96, "resize": 110}, 96, 110, (0.485, 0.456, 0.406), "bicubic"),
        ({"resize": 232}, 224, 232, (0.485, 0.456, 0.406), "bicubic"),
        ({"mean": [0.5, 0.5, 0.5]}, 224, 256, (0.5, 0.5, 0.5), "bicubic"),
        ({"interpolation": "nearest"}, 224, 256, (0.485, 0.456, 0.406), "nearest"),
    ],
)
def test_a_transform_is_overridden_key_by_key(given, size, resize, mean, interpolation):
    source = timm_entry(model="mobilenetv2_100", transform=given)
    std = (0.229, 0.224, 0.225)
    assert source_transform(source) == Transform(size, mean, std, interpolation, resize)


def test_an_image_size_for_the_architecture_is_the_size_of_the_transform():
    source = timm_entry(model="test_vit", kwargs={"img_size": 64})
    transform = source_transform(source)
    assert (transform.size, transform.resize) == (64, 67)  # floor(64 / 0.95)
    module = build_untrained(source, seed=0)
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_torchvision_takes_the_transform_of_its_default_weights(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(num_classes=5).state_dict(), tmp_path / "w.pth")
    keys = {"loader": "torchvision", "model": "squeezenet1_1", "kwargs": {"num_classes": 5}}
    network = load_network(entry(checkpoint=str(tmp_path / "w.pth"), **keys))
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert network.transform == Transform(224, *imagenet, "bilinear", resize=256)
    assert network.module(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    # As torchvision documents its EfficientNet-B1: resized to 255, cropped to 240 (the second weights)
    efficient = source_transform(entry(loader="torchvision", model="efficientnet_b1"))
    assert efficient == Transform(240, *imagenet, "bilinear", resize=255)


def test_a_model_without_a_preset_for_images_asks_for_a_transform():
    with pytest.raises(SourceError, match=r"'a': torchvision does not say .*size, mean, std under transform:"):
        source_transform(entry(loader="torchvision", model="raft_small"))


def test_segmentation_models_are_built_without_weights_for_their_backbone(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    module = build_untrained(entry(loader="torchvision", model="lraspp_mobilenet_v3_large"), seed=0)
    assert isinstance(module, nn.Module)


def test_a_factory_with_its_checkpoint(python_entry, tmp_path):
    saved = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).double()
    torch.save({"state_dict": {f"module.{k}": v for k, v in saved.state_dict().items()}}, tmp_path / "w.pt")
    source = python_entry(checkpoint=str(tmp_path / "w.pt"), kwargs={"width": 5})
    network = load_network(source, trust_code=True)
    assert same_weights(network.module, saved.float())
    assert network.transform == Transform(8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_factory_is_not_run_without_trust(python_entry, tmp_path):
    source = python_entry(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + FACTORY)
    for build in (load_network, lambda source: build_untrained(source, seed=0)):
        with pytest.raises(InputError, match=r"'a' runs the code of .*ours\.py.*--trust-code.*trust_code=True"):
            build(source)
    assert source_transform(source).size == 8
    fingerprint(source)
    assert not (tmp_path / "ran").exists()
    load_network(source, trust_code=True)
    assert (tmp_path / "ran").exists()


def test_a_factory_imports_the_files_beside_it_and_no_others(tmp_path):
    for folder, width in [("one", 2), ("two", 6)]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "blocks_beside.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "ours.py").write_text(
            "from torch import nn\n"
            "def build():\n    from blocks_beside import WIDTH\n    return nn.Conv2d(3, WIDTH, 1)\n"
        )
    before = list(sys.path)
    for folder, width in [("one", 2), ("two", 6)]:
        source = entry(loader="python", factory=f"{tmp_path / folder / 'ours.py'}:build", transform={"size": 8})
        assert load_network(source, trust_code=True).module.out_channels == width
    assert sys.path == before
    assert "blocks_beside" not in sys.modules


def test_libraries_that_a_factory_is_the_first_to_import_stay(python_entry, tmp_path, monkeypatch):
    """Also when they lie below the factory's folder, as in a virtual environment there."""
    environment, local = tmp_path / "venv", tmp_path / "local_package"
    for folder in (environment, local):
        folder.mkdir()
    (environment / "far_library.py").write_text("")
    (local / "part.py").write_text("")
    monkeypatch.syspath_prepend(environment)
    load_network(python_entry("import far_library, local_package.part\n" + FACTORY), trust_code=True)
    assert "far_library" in sys.modules
    assert not {"local_package", "local_package.part"} & set(sys.modules)
    monkeypatch.delitem(sys.modules, "far_library")


def test_a_factory_is_read_afresh_and_leaves_no_byte_code(python_entry, tmp_path):
    first = load_network(python_entry(), trust_code=True)
    second = load_network(python_entry(FACTORY.replace("width=4", "width=6")), trust_code=True)
    assert (first.module[0].out_channels, second.module[0].out_channels) == (4, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.py"]
    # its classes and functions find their module, as dataclasses and pickle need
    class_code = "from torch import nn\nclass Net(nn.Linear):\n    pass\ndef build():\n    return Net(2, 2)\n"
    module = load_network(python_entry(class_code), trust_code=True).module
    assert getattr(sys.modules[type(module).__module__], "Net") is type(module)  # noqa: B009
    assert inspect.getsource(type(module)).startswith("class Net")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def biuld():\n    pass\n", r"no function 'build' \(did you mean 'biuld'\?\)"),
        ("def build(:\n", "SyntaxError"),
        ("import no_such_module_at_all\n", "no_such_module_at_all"),
        ("def build():\n    return 3\n", "must return a torch.nn.Module, got int"),
        ("def build(depth):\n    pass\n", "TypeError.*depth"),
        ("raise SystemExit(2)\n", "SystemExit"),
    ],
)
def test_a_factory_that_fails_is_told(python_entry, code, says):
    with pytest.raises(SourceError, match=f"(?s)source 'a': .*ours.py.*{says}"):
        load_network(python_entry(code), trust_code=True)


def test_a_missing_factory_file_is_told(python_entry, tmp_path):
    source = python_entry()
    (tmp_path / "ours.py").rename(tmp_path / "our.py")
    for call in (lambda s: load_network(s, trust_code=True), fingerprint):
        with pytest.raises(SourceError, match=r"source 'a': there is no file .*ours\.py \(did you mean 'our\.py'"):
            call(source)


def test_a_checkpoint_that_does_not_fit_is_blamed_on_its_source(tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=965).state_dict(), tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"source 'a': checkpoint .*fc\.weight.*kwargs: {num_classes: 965}"):
        load_network(timm_entry(checkpoint=str(tmp_path / "w.pt")))
    with pytest.raises(SourceError, match="source 'a': checkpoint: there is no file"):
        load_network(timm_entry(checkpoint=str(tmp_path / "v.pt")))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"model": "test_resnett"}, r"no model 'test_resnett' \(did you mean 'test_resnet'"),
        ({"loader": "torchvision", "model": "resnet19"}, r"no model 'resnet19' \(did you mean 'resnet1"),
        ({"kwargs": {"num_clases": 3}}, "cannot build 'test_resnet'.*num_clases.*correct model or kwargs"),
        (
            {"loader": "torchvision", "model": "resnet18", "kwargs": {"width": 3}},
            "cannot build 'resnet18'.*width",
        ),
    ],
)
def test_models_and_arguments_that_do_not_exist(keys, says):
    with pytest.raises(SourceError, match=f"source 'a': .*{says}"):
        build_untrained(timm_entry(**keys), seed=0)


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=r"'a': .*HF_HUB_OFFLINE forbids.*local file as its `checkpoint`"):
        load_network(timm_entry())

    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_network)
    with pytest.raises(SourceError, match=r"'a': .*could not be downloaded.*not known.*local file as its `checkpoint`"):
        load_network(entry(loader="torchvision", model="squeezenet1_1"))


@pytest.mark.parametrize("library", ["httpx", "httpx2", "urllib3", "requests"])
def test_a_download_that_breaks_off_is_known_by_the_library_that_it_was_made_with(library, monkeypatch, tmp_path):
    def break_off(*args, **kwargs):
        raise type("ReadTimeout", (Exception,), {"__module__": f"{library}.exceptions"})("timed out")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", break_off)
    with pytest.raises(SourceError, match=r"'a': .*could not be downloaded .* \(ReadTimeout\).*local file as its"):
        load_network(timm_entry())
    monkeypatch.setattr("transferscope.networks.hub.fetched", lambda *_, **__: tmp_path)
    monkeypatch.setattr("timm.create_model", break_off)
    with pytest.raises(SourceError, match=r"'a': .*could not be downloaded \(ReadTimeout: timed out\)"):
        load_network(timm_entry())


def test_torchvision_gets_its_default_weights(monkeypatch):
    saved = torchvision.models.squeezenet1_1(weights=None)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *a, **k: saved.state_dict())
    network = load_network(entry(loader="torchvision", model="squeezenet1_1"))
    assert same_weights(network.module, saved)


@pytest.mark.parametrize("loader", ["timm", "python"])
def test_untrained_networks_follow_the_seed_and_leave_the_random_state(loader, python_entry):
    source = timm_entry() if loader == "timm" else python_entry()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (build_untrained(source, seed=seed, trust_code=True) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert not first.training


def test_weights_that_no_file_gives_follow_the_seed(python_entry):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (load_network(python_entry(), trust_code=True, seed=s).module for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(first, again)
    assert not same_weights(first, other)


@pytest.mark.parametrize("keys", [{"weights": "none"}, {"kwargs": {"pretrained": False}}])
def test_random_weights_are_drawn_by_the_seed_and_are_no_predictions(keys, monkeypatch):
    first, again, other = (load_network(timm_entry(**keys), seed=seed).module for seed in (1, 1, 2))
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert same_weights(first, build_untrained(timm_entry(), seed=1))
    assert untrained(first) == "the weights of the network are drawn at random"
    torch_vision = load_network(entry(loader="torchvision", model="squeezenet1_1", weights="none"))
    assert untrained(torch_vision.module)


def test_both_ways_to_ask_for_random_weights_are_one_source():
    said = [timm_entry(**keys) for keys in ({"weights": "none"}, {"kwargs": {"pretrained": False}})]
    assert len({fingerprint(source) for source in said}) == 1
    assert fingerprint(said[0]) != fingerprint(timm_entry())
    assert len({architecture(source) for source in [*said, timm_entry()]}) == 1
    assert architecture(said[0]) != architecture(timm_entry(kwargs={"num_classes": 3}))


def test_a_factory_of_random_weights_is_run_as_it_is(python_entry):
    source = python_entry(weights="none")
    assert untrained(load_network(source, trust_code=True).module)
    assert not untrained(load_network(python_entry(), trust_code=True).module)


def test_a_classifier_that_nobody_has_trained_is_noted(tmp_path, monkeypatch):
    saved = timm.create_model("test_resnet")
    body = {key: value for key, value in saved.state_dict().items() if not key.startswith("fc.")}
    torch.save(body, tmp_path / "body.pt")
    torch.save(saved.state_dict(), tmp_path / "whole.pt")
    with pytest.warns(TransferscopeWarning, match="has no classifier"):
        network = load_network(timm_entry(checkpoint=str(tmp_path / "body.pt")))
    assert "has no classifier" in untrained(network.module)
    assert not untrained(load_network(timm_entry(checkpoint=str(tmp_path / "whole.pt"))).module)
    # timm draws a classifier of another width than that of its own weights
    create = timm.create_model
    monkeypatch.setattr("transferscope.networks.hub.fetched", lambda *_, **__: tmp_path)
    monkeypatch.setattr("timm.create_model", lambda model, pretrained, **kwargs: create(model, **kwargs))
    assert "another width" in untrained(load_network(timm_entry(kwargs={"num_classes": 7})).module)
    for classes in (0, 1000):
        assert not untrained(load_network(timm_entry(kwargs={"num_classes": classes})).module)


def test_an_architecture_that_timm_has_no_weights_for_is_told():
    """That one is found among timm's names: which it is changes with its versions."""
    listed = set(timm.list_models(pretrained=True))
    known = {name.partition(".")[0] for name in listed}
    model = next(name for name in timm.list_models("vit_*") if name not in known)
    with pytest.raises(SourceError, match=f"timm has no weights for '{model}'; name a file .*`weights: none`"):
        load_network(timm_entry(model=model))


def test_a_checkpoint_key_picks_the_network_and_is_part_of_the_fingerprint(tmp_path):
    first, second = (timm.create_model("test_resnet") for _ in range(2))
    torch.save({"first": first.state_dict(), "second": second.state_dict()}, tmp_path / "w.pt")
    sources = [timm_entry(checkpoint=str(tmp_path / "w.pt"), checkpoint_key=key) for key in ("first", "second")]
    for source, saved in zip(sources, (first, second), strict=True):
        assert same_weights(load_network(source).module, saved)
    assert len({fingerprint(source) for source in sources}) == 2


def test_the_settings_of_an_adapter_are_part_of_the_fingerprint(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    source = timm_entry(checkpoint=str(tmp_path / "w.pt"))
    before = fingerprint(source)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert fingerprint(source) != before


def test_an_architecture_is_loaded_without_its_weights(monkeypatch, tmp_path):
    source = timm_entry(checkpoint=str(tmp_path / "missing.pt"))
    network = load_architecture(source)
    assert network.transform == source_transform(source)
    assert same_weights(network.module, build_untrained(source, seed=0))


def test_an_outline_has_names_and_shapes_and_no_memory(monkeypatch):
    source = timm_entry(weights="none")
    module = outline(source)
    assert {value.device.type for value in module.state_dict().values()} == {"meta"}
    built = build_untrained(source, seed=0).state_dict()
    assert {key: value.shape for key, value in module.state_dict().items()} == {k: v.shape for k, v in built.items()}
    create = timm.create_model

    def computing(*args, **kwargs):
        torch.ones(()).item()  # which has no value without memory
        return create(*args, **kwargs)

    monkeypatch.setattr("timm.create_model", computing)
    assert {value.device.type for value in outline(source).state_dict().values()} == {"cpu"}


def zoo_folder(folder, factory=FACTORY, beside="X = 1\n", weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "ours.py").write_text("import blocks\n" + factory)
    (folder / "blocks.py").write_text("from deeper import more\n")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "more.py").write_text(beside)
    (folder / "unrelated.py").write_text(str(folder))
    (folder / "w.pt").write_bytes(weights)
    return {"loader": "python", "factory": f"{folder}/ours.py:build", "checkpoint": f"{folder}/w.pt",
            "transform": {"size": 8}}  # fmt: skip


def test_a_fingerprint_depends_on_contents_and_not_on_places(tmp_path):
    same = {
        fingerprint(entry(**zoo_folder(tmp_path / "one"))),
        fingerprint(entry(**zoo_folder(tmp_path / "another place"))),
        fingerprint(entry(**zoo_folder(tmp_path / "three"), layers=["0"])),
        fingerprint(load_zoo([{"name": "other name", **zoo_folder(tmp_path / "four")}])["other name"]),
    }
    keys = zoo_folder(tmp_path / "five")
    different = [
        fingerprint(entry(**zoo_folder(tmp_path / "a", factory=FACTORY + "\n"))),
        fingerprint(entry(**zoo_folder(tmp_path / "b", beside="X = 2\n"))),
        fingerprint(entry(**zoo_folder(tmp_path / "c", weights=b"weightz"))),
        fingerprint(entry(**keys, kwargs={"width": 4})),
        fingerprint(entry(**keys | {"transform": {"size": 9}})),
        fingerprint(entry(**keys | {"factory": keys["factory"] + "2"})),
        fingerprint(timm_entry()),
        fingerprint(timm_entry(model="test_vit")),
        fingerprint(timm_entry(model="test_vit", loader="torchvision")),
        fingerprint(timm_entry(checkpoint=keys["checkpoint"])),
    ]
    assert len(same) == 1
    assert len(same.union(different)) == 1 + len(different)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in different)


def test_a_fingerprint_needs_its_files_and_follows_versions(tmp_path, monkeypatch):
    with pytest.raises(SourceError, match=r"source 'a': there is no file .*w\.pt"):
        fingerprint(timm_entry(checkpoint=str(tmp_path / "w.pt")))
    before = fingerprint(timm_entry())
    monkeypatch.setattr("transferscope.networks.loading.version", lambda name: f"99 of {name}")
    assert fingerprint(timm_entry()) != before
