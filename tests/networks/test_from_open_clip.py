"""Image towers of open_clip: from a folder, a file, or by name; what they put out is the library's own."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import OPEN_CLIP, save_open_clip

from transferscope.activations.capture import resolve_stages
from transferscope.activations.tracing import trace
from transferscope.data.images import Transform
from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks.checking import check_sources
from transferscope.networks.loading import (
    build_untrained,
    fingerprint,
    load_network,
    outline,
    source_transform,
)
from transferscope.networks.zoo import load_zoo
from transferscope.runtime.trained import untrained

open_clip = pytest.importorskip("open_clip")

pytestmark = pytest.mark.bounds


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a model, saved once."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name):
        return folder / name if (folder / name).exists() else save_open_clip(name, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield saved


def entry(model, **keys):
    return load_zoo([{"name": "a", "loader": "open_clip", "model": str(model), **keys}])["a"]


def images(side, n=3):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def own(folder, **options):
    """Return the library's own image tower."""
    return open_clip.create_model(f"local-dir:{folder}", **options).visual.eval()


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize(("name", "stages"), [("vit", 5), ("resnet", 8), ("coca", 6), ("timm", 8)])
def test_a_tower_puts_out_what_the_library_says(name, stages, saved):
    network = load_network(entry(saved(name)))
    side = OPEN_CLIP[name]["image_size"]
    assert network.transform == Transform(side, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")
    with torch.no_grad():
        torch.testing.assert_close(first(network.module(images(side))), first(own(saved(name))(images(side))))
    assert "image tower" in untrained(network.module)
    traced = trace(network.module, images(side, 1))
    assert traced.output.shape == (12,)
    assert len(resolve_stages(network.module, "auto", traced, cuts_only=True)) == stages
    keys = outline(entry(saved(name))).state_dict()
    assert {key: value.shape for key, value in keys.items()} == {
        key: value.shape for key, value in own(saved(name)).state_dict().items()
    }


def test_a_file_that_describes_an_architecture_and_one_of_weights(saved, tmp_path):
    folder = saved("vit")
    state = load_file(folder / "open_clip_model.safetensors")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "epoch_1.pt")
    for checkpoint in (folder / "open_clip_model.safetensors", tmp_path / "epoch_1.pt"):
        source = entry(folder / "architecture.json", checkpoint=str(checkpoint))
        with pytest.warns(TransferscopeWarning, match=r"the weights under (state_dict\.module\.)?visual are taken"):
            module = load_network(source).module
        with torch.no_grad():
            torch.testing.assert_close(module(images(32)), own(folder)(images(32)))
    source = entry(folder / "architecture.json")
    with pytest.raises(SourceError, match="describes an architecture: name its weights as `checkpoint`"):
        load_network(source)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(
        SourceError, match=r"other\.json describes no model of open_clip: expected embed_dim and vision_cfg"
    ):
        load_network(entry(tmp_path / "other.json"))


def test_images_of_another_size(saved):
    with pytest.warns(
        TransferscopeWarning, match=r"positional_embedding, .* as open_clip does it, from \(17, 16\) to \(65,"
    ):
        network = load_network(entry(saved("vit"), kwargs={"image_size": 64}))
    assert network.transform.size == 64
    theirs = own(saved("vit"), force_image_size=64)
    with torch.no_grad():
        torch.testing.assert_close(network.module(images(64)), theirs(images(64)))
    network = load_network(entry(saved("timm"), kwargs={"image_size": 64}))
    theirs = own(saved("timm"), force_image_size=64)
    with torch.no_grad():
        torch.testing.assert_close(network.module(images(64)), theirs(images(64)))


def test_an_architecture_of_the_library_needs_a_name_for_its_weights(monkeypatch, saved, tmp_path):
    for check in (load_network, outline):
        with pytest.raises(
            SourceError, match=r"which weights of 'RN50' to take: name them as kwargs, pretrained; there are openai"
        ):
            check(entry("RN50"))
    with pytest.raises(SourceError, match=r"no weights 'openaii' of 'RN50' \(did you mean 'openai'"):
        load_network(entry("RN50", kwargs={"pretrained": "openaii"}))
    with pytest.raises(
        SourceError, match=r"knows no setting 'image_sise' of an image tower \(did you mean 'image_size'"
    ):
        build_untrained(entry("RN50", kwargs={"image_sise": 3}), seed=0)
    with pytest.raises(SourceError, match=r"open_clip has no model 'ViT-B-33' \(did you mean 'ViT-B-32'"):
        load_network(entry("ViT-B-33"))
    with pytest.raises(SourceError, match=r"'timm/resnet50_clip.openai' is not on this machine.*HF_HUB_OFFLINE"):
        load_network(entry("RN50", kwargs={"pretrained": "openai"}))
    # Of the weights, and so of how images are prepared for them: those of PE were trained on the range from -1 to 1.
    transform = source_transform(entry("PE-Core-T-16-384", kwargs={"pretrained": "meta"}))
    assert (transform.size, transform.mean, transform.interpolation) == (384, (0.5, 0.5, 0.5), "bilinear")


def test_weights_of_a_name_come_from_the_hub(monkeypatch, saved, tmp_path):
    """Here from a folder that stands for what the hub gives, of an architecture that stands for a large one."""
    folder = shutil.copytree(saved("vit"), tmp_path / "fetched")
    open_clip.add_model_config(saved("vit") / "architecture.json")
    try:
        asked = []

        def fetched(name, choose, lacking, revision):
            asked.append(
                (name, choose(["README.md", "open_clip_config.json", "open_clip_model.safetensors"]), revision)
            )
            assert not lacking(folder)
            return folder

        monkeypatch.setattr("transferscope.networks.hub.fetched", fetched)
        monkeypatch.setattr(open_clip, "is_pretrained_cfg", lambda *_: True)
        tag = {"hf_hub": "laion/small/", "mean": (0.1, 0.2, 0.3), "quick_gelu": True}
        monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
        network = load_network(entry("architecture", kwargs={"pretrained": "some", "revision": "v1"}))
    finally:
        from open_clip import factory

        factory._MODEL_CONFIG_PATHS.pop()
        factory._MODEL_CONFIGS.pop("architecture")
    assert asked == [("laion/small", ["open_clip_config.json", "open_clip_model.safetensors"], "v1")]
    assert network.transform.mean == (0.1, 0.2, 0.3)
    theirs = own(saved("vit"), force_quick_gelu=True)  # as the weights were trained, whatever the architecture says
    with torch.no_grad():
        torch.testing.assert_close(network.module(images(32)), theirs(images(32)))


def test_a_model_on_the_hub(monkeypatch, saved):
    monkeypatch.setattr("transferscope.networks.hub.fetched", lambda *_: saved("vit"))
    network = load_network(entry("hf-hub:laion/small"))
    with torch.no_grad():
        torch.testing.assert_close(network.module(images(32)), own(saved("vit"))(images(32)))
    assert check_sources(load_zoo([entry("hf-hub:laion/small")])) == ([], [])
    with pytest.raises(SourceError, match="'small model' is no name on the Hugging Face hub"):
        load_network(entry("hf-hub:small model"))


def test_a_folder_is_known_by_what_it_holds(saved, tmp_path):
    copy = shutil.copytree(saved("vit"), tmp_path / "copy")
    assert fingerprint(entry(copy)) == fingerprint(entry(saved("vit")))
    file = entry(saved("vit") / "architecture.json", weights="none")
    assert fingerprint(entry(copy / "architecture.json", weights="none")) == fingerprint(file)
    state = load_file(copy / "open_clip_model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, copy / "open_clip_model.safetensors")
    assert fingerprint(entry(copy)) != fingerprint(entry(saved("vit")))
    named = [entry("RN50", kwargs={"pretrained": tag}) for tag in ("openai", "yfcc15m")]
    assert len({fingerprint(source) for source in [*named, entry("RN50", weights="none")]}) == 3


def test_weights_that_are_missing_are_told(saved, tmp_path):
    copy = shutil.copytree(saved("vit"), tmp_path / "copy")
    (copy / "open_clip_model.safetensors").unlink()
    problems, _ = check_sources(load_zoo([entry(copy)]))
    assert problems == [
        f"sources[0] (a).model: the folder {copy} has no weights of open_clip (open_clip_model.safetensors); name "
        "them as `checkpoint`"
    ]
    (copy / "open_clip_config.json").unlink()
    problems, _ = check_sources(load_zoo([entry(copy)]))
    assert problems == [
        f"sources[0] (a).model: the folder {copy} is no model, for it has no open_clip_config.json; correct the path"
    ]
