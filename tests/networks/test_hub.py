"""Models by name on the Hugging Face hub: fetched once, without the network afterwards, and failures are a sentence."""

import json
import shutil
import time
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub import errors
from safetensors.torch import save_file

from transferscope.errors import InputError, SourceError
from transferscope.networks import hub, lookup
from transferscope.networks.blueprint import blueprint
from transferscope.networks.checking import check_sources
from transferscope.networks.loading import architecture, fingerprint, load_architecture, load_network, outline
from transferscope.networks.zoo import load_zoo

pytestmark = pytest.mark.bounds

NAME = "owner/vit"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the hub that is empty, and no network that could be asked."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def no_network(*args, **kwargs):
        asked.append(kwargs)
        raise type("ConnectError", (Exception,), {"__module__": "httpx2"})("[Errno -2] Name or service not known")

    asked = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    return SimpleNamespace(folder=tmp_path / "hub", asked=asked)


def entry(loader="transformers", model=NAME, **keys):
    return load_zoo([{"name": "a", "loader": loader, "model": model, **keys}])["a"]


def in_cache(cache, folder, *, without=(), revision="main"):
    """Put a folder into the cache as the hub's own library does."""
    home = cache.folder / "models--owner--vit"
    shutil.copytree(folder, home / "snapshots" / "c0ffee", ignore=lambda *_: without)
    (home / "refs").mkdir()
    (home / "refs" / revision).write_text("c0ffee")


@pytest.fixture
def vit(tmp_path):
    pytest.importorskip("transformers")
    from small_models import save_transformers

    return save_transformers("vit", tmp_path)


def test_without_a_network_it_is_one_question_and_a_sentence(cache):
    pytest.importorskip("transformers")
    began = time.perf_counter()
    with pytest.raises(
        SourceError, match=r"'a': 'owner/vit' could not be downloaded .*\(ConnectError\); connect .* folder"
    ):
        load_network(entry())
    assert time.perf_counter() - began < 10  # the libraries themselves go on trying for 23 seconds a file
    assert len(cache.asked) == 1
    assert cache.asked[0]["timeout"] <= 5


def test_offline_nobody_is_asked(cache, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=r"not on this machine.*HF_HUB_OFFLINE forbids .*give a folder"):
        load_network(entry())
    assert cache.asked == []


def test_what_is_in_the_cache_is_loaded_without_a_question(cache, vit):
    in_cache(cache, vit)
    module = load_network(entry()).module
    assert type(module).__name__ == "ViTForImageClassification"
    assert outline(entry())
    assert cache.asked == []


def test_a_part_of_a_model_is_enough_where_no_weights_are_asked_for(cache, vit):
    in_cache(cache, vit, without=("model.safetensors",))
    load_network(entry(weights="none"))
    assert cache.asked == []
    with pytest.raises(SourceError, match="could not be downloaded"):
        load_network(entry())


def test_a_revision_is_another_model(cache, vit):
    in_cache(cache, vit, revision="v2")
    load_network(entry(kwargs={"revision": "v2"}))
    with pytest.raises(SourceError, match="could not be downloaded"):
        load_network(entry())


def test_of_a_model_what_is_needed_is_downloaded(cache, vit, monkeypatch):
    names = ["config.json", "preprocessor_config.json", "README.md", "model.safetensors", "pytorch_model.bin",
             "tf_model.h5", "onnx/model.onnx", "onnx/config.json"]  # fmt: skip
    listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
    fetch, patterns = huggingface_hub.snapshot_download, []

    def download(model, *, local_files_only=False, allow_patterns=(), **options):
        if not local_files_only:
            patterns.append(allow_patterns)
            in_cache(cache, vit)
        return fetch(model, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: listed)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    load_network(entry())
    assert patterns == [["config.json", "preprocessor_config.json", "model.safetensors"]]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (errors.RepositoryNotFoundError, "has no model 'owner/vit'; correct the name, or run hf auth login"),
        (errors.GatedRepoError, "is gated on the Hugging Face hub: ask for access"),
        (errors.RevisionNotFoundError, "has no model 'owner/vit'; correct"),
    ],
)
def test_what_the_hub_refuses(kind, says, monkeypatch):
    def refuse(*args, **kwargs):
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(SourceError, match=says):
        hub.fetched(NAME, list, lambda folder: "")


def test_a_model_of_another_kind_is_told(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no model")
    in_cache(cache, tmp_path / "empty")
    with pytest.raises(SourceError, match="could not be downloaded"):
        hub.fetched(NAME, list, lambda folder: "no config.json")


@pytest.mark.parametrize(("loader", "extra"), [("transformers", "transformers"), ("open_clip", "open-clip")])
def test_a_library_that_is_not_installed_is_told_before_anything_runs(loader, extra, monkeypatch):
    monkeypatch.setattr(lookup, "find_spec", lambda name: None)
    says = rf"{loader} is not installed: pip install 'transferscope\[{extra}\]'"
    with pytest.raises(SourceError, match=f"source 'a': {says}"):
        load_network(entry(loader))
    problems, _ = check_sources(load_zoo([entry(loader)]))
    assert [problem.partition(": ")[2] for problem in problems] == [says.replace("\\", "")]


def test_names_on_the_hub_are_not_looked_up_by_validate(cache):
    pytest.importorskip("transformers")
    assert check_sources(load_zoo([entry()])) == ([], [])
    assert cache.asked == []


@pytest.mark.parametrize("loader", ["transformers", "timm"])
def test_what_only_looks_at_a_zoo_asks_nobody(cache, loader, tmp_path):
    pytest.importorskip("transformers")
    source = entry(loader, NAME if loader == "transformers" else f"hf-hub:{NAME}")
    for look in (outline, load_architecture):
        with pytest.raises(SourceError, match=r"'owner/vit' is not on this machine.*nothing is downloaded to look"):
            look(source)
    assert check_sources(load_zoo([source])) == ([], [])
    assert cache.asked == []


def test_what_a_model_holds_is_part_of_its_fingerprint(cache, vit):
    with pytest.raises(SourceError, match="could not be downloaded"):
        fingerprint(entry())
    in_cache(cache, vit)
    first = fingerprint(entry())
    assert fingerprint(entry()) == first
    damage(cache, "model.safetensors")
    assert fingerprint(entry()) != first


def damage(cache, name):
    weights = next(cache.folder.rglob(name))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture
def of_timm(tmp_path):
    """A folder as timm puts it on the hub."""
    import timm

    module, saved = timm.create_model("test_resnet", num_classes=5), tmp_path / "saved"
    saved.mkdir()
    # Older versions have no public function for it.
    save_file(module.state_dict(), saved / "model.safetensors")
    known = {name: value for name, value in module.pretrained_cfg.items() if value is not None}
    config = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": known}
    (saved / "config.json").write_text(json.dumps(config))
    return saved, module


def test_a_model_of_timm_on_the_hub_is_loaded_without_a_question(cache, of_timm):
    folder, module = of_timm
    in_cache(cache, folder)
    source = entry("timm", f"hf-hub:{NAME}")
    loaded = load_network(source).module
    assert cache.asked == []
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    assert all((mine == other).all() for mine, other in zip(module.parameters(), loaded.parameters(), strict=True))
    first = fingerprint(source)
    damage(cache, "*model.*")
    assert fingerprint(source) != first
    assert architecture(source) == architecture(entry("timm", f"hf_hub:{NAME}", weights="none"))


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_a_model_of_timm_on_the_hub_is_described_for_being_built_again_without_a_question(cache, of_timm, prefix):
    in_cache(cache, of_timm[0])
    plan = blueprint(entry("timm", f"{prefix}{NAME}"))
    assert plan.entry == {"loader": "timm", "model": "test_resnet", "kwargs": {"num_classes": 5}}
    assert plan.files == {}
    assert cache.asked == []


def test_weights_of_timm_are_asked_for_once(cache):
    began = time.perf_counter()
    with pytest.raises(SourceError, match=r"'timm/test_resnet.*' could not be downloaded .*local file as its"):
        load_network(entry("timm", "test_resnet"))
    assert time.perf_counter() - began < 10
    assert len(cache.asked) == 1


@pytest.mark.parametrize(
    "model",
    ["local-dir:/w", "LOCAL-DIR:/w", "Local-Dir:/w", " local-dir:/w", "\tlocal-dir:/w", "lo\ncal-dir:/w", "local-dir:",
     "HF-HUB:owner/vit", "hf-hub:/w", "hf-hub:../w", "file:/w", "https://host/w", "hf-hub:owner/vit?x", "hf-hub:a/b/c"],
)  # fmt: skip
def test_whatever_names_a_place_for_weights_is_caught(model):
    with pytest.raises(InputError, match="model: cannot be a folder or another place: name the architecture"):
        entry("timm", model)


@pytest.mark.parametrize(
    ("loader", "argument"),
    [("timm", "pretrained_cfg"), ("timm", "pretrained_cfg_overlay"), ("timm", "pretrained_strict"),
     ("timm", "cache_dir"), ("timm", "checkpoint_path"), ("torchvision", "weights"),
     ("torchvision", "weights_backbone"),
     ("torchvision", "pretrained_backbone"), ("torchvision", "pretrained"), ("transformers", "use_pretrained_backbone"),
     ("open_clip", "pretrained_image"), ("open_clip", "timm_model_pretrained")],
)  # fmt: skip
def test_whatever_argument_chooses_weights_is_caught(loader, argument):
    with pytest.raises(InputError, match=f"kwargs.{argument}: (chooses weights|is the default)"):
        entry(loader, "resnet18", kwargs={argument: True})
