"""Models of transformers, one of each family: weights, transforms and names are the library's own."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_models import CLASSIFIERS, SIDE, TRANSFORMERS, save_transformers

from transferscope.activations.capture import resolve_stages
from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import trace
from transferscope.errors import SourceError
from transferscope.networks.checking import check_sources
from transferscope.networks.loading import (
    architecture,
    build_untrained,
    fingerprint,
    load_network,
    outline,
    source_transform,
)
from transferscope.networks.processors import processor_options
from transferscope.networks.zoo import load_zoo
from transferscope.runtime.trained import untrained

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.bounds

STAGES = {
    # Stem, blocks and what changes the resolution between them, pooled output; the names are those of the library.
    "vit": 5, "vit-tower": 5, "dinov2": 5, "dinov2-registers": 5, "swin": 8, "swin-tower": 8, "convnext": 10,
    "siglip": 5, "clip": 5, "beit": 5, "resnet": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a family's model, saved once."""
    folder = tmp_path_factory.mktemp("models")

    def saved(name):
        return folder / name if (folder / name).exists() else save_transformers(name, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield saved


@pytest.fixture
def copy_of(saved, tmp_path):
    """Return a copy of a model's folder that may be changed."""
    return lambda name: shutil.copytree(saved(name), tmp_path / f"copy of {name}")


def entry(model, **keys):
    return load_zoo([{"name": "a", "loader": "transformers", "model": str(model), **keys}])["a"]


def images(n=3, side=SIDE):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def tower_of(name, folder):
    """Return the library's own network for a family, and what it puts out for images."""
    kinds = {"siglip": "SiglipVisionModel", "clip": "CLIPVisionModel"}
    net = getattr(transformers, kinds.get(name, TRANSFORMERS[name][0])).from_pretrained(folder).eval()
    with torch.no_grad():
        output = net(images())
    if name in CLASSIFIERS:
        return output.logits
    return output.last_hidden_state if name == "vit-tower" else output.pooler_output


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_model_puts_out_what_the_library_says(name, saved):
    network = load_network(entry(saved(name)))
    traced = trace(network.module, images(1))
    (way,) = traced.output.way
    assert way == ("logits" if name in CLASSIFIERS else "last_hidden_state" if name == "vit-tower" else "pooler_output")
    with torch.no_grad():
        torch.testing.assert_close(network.module(images())[way], tower_of(name, saved(name)))
    # The classifier's probabilities are there for LEEP, and a tower's outputs are not taken for some.
    assert bool(untrained(network.module)) == (name not in CLASSIFIERS)
    assert len(classifiers(traced)) == (name in CLASSIFIERS)
    assert not network.module.training
    assert all(parameter.requires_grad for parameter in network.module.parameters())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_stages_are_the_stem_the_blocks_and_the_pooled_output(name, saved):
    module = load_network(entry(saved(name))).module
    stages = resolve_stages(module, "auto", images(1), cuts_only=True)
    assert len(stages) == STAGES[name]
    assert stages[0].layer.rpartition(".")[2] in ("embeddings", "embedder")
    # All weights but a classifier's lie before the last stage.
    own = sum(parameter.numel() for parameter in module.parameters())
    head = sum(p.numel() for call in classifiers(trace(module, images(1))) for p in call.module.parameters())
    unused = sum(p.numel() for key, p in module.named_parameters() if "mask_token" in key)
    assert stages[-1].params == own - head - unused


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_image_processor_becomes_the_transform(name, saved):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    ours = source_transform(entry(saved(name)))(image)
    processor = transformers.AutoImageProcessor.from_pretrained(saved(name))
    (theirs,) = processor(images=[image], return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    # Half a grey level here and there, for it resizes tensors and Pillow images.
    std = min(source_transform(entry(saved(name))).std)
    assert float((ours - theirs).abs().mean()) < 1 / 255 / std


def test_a_processor_that_scales_otherwise_is_read_by_what_it_does():
    class Processor:
        size, do_resize, do_rescale, rescale_factor, rescale_offset = {"shortest_edge": 40}, True, True, 1 / 127.5, True
        do_normalize, image_mean, image_std, resample = True, [0.5, 0.25, 0.0], [0.5, 1.0, 2.0], 2

    options = processor_options(Processor())
    assert (options["size"], options["resize"], options["interpolation"]) == (40, 40, "bilinear")
    values = np.array([0.0, 100.0, 255.0])
    for mean, std, own_mean, own_std in zip(
        options["mean"], options["std"], Processor.image_mean, Processor.image_std, strict=True
    ):
        np.testing.assert_allclose((values / 255 - mean) / std, (values / 127.5 - 1 - own_mean) / own_std)
    Processor.do_normalize = Processor.do_rescale = Processor.rescale_offset = False
    options = processor_options(Processor())
    np.testing.assert_allclose((values / 255 - options["mean"][0]) / options["std"][0], values)


def test_without_a_processor_the_entry_has_to_say_it(copy_of):
    folder = copy_of("vit")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        SourceError, match=r"'a': transformers does not say how .* give size, mean, std under transform"
    ):
        load_network(entry(folder))
    given = {"size": SIDE, "mean": [0.5], "std": [0.5]}
    assert load_network(entry(folder, transform=given)).transform.mean == (0.5, 0.5, 0.5)


def test_settings_of_the_configuration_are_kwargs(saved):
    module = build_untrained(entry(saved("vit"), kwargs={"num_labels": 7, "num_channels": 1}), seed=0)
    assert module(torch.zeros(1, 1, SIDE, SIDE)).logits.shape == (1, 7)
    grey = source_transform(entry(saved("vit"), kwargs={"num_channels": 1}))
    assert grey.mean == (0.5,)
    network = load_network(entry(saved("vit"), kwargs={"num_labels": 7}))
    assert "another width" in untrained(network.module)
    with pytest.raises(SourceError, match=r"ViTConfig has no 'num_label' \(did you mean 'num_labels'.*kwargs"):
        load_network(entry(saved("vit"), kwargs={"num_label": 7}))


def test_images_of_another_size(saved):
    with pytest.raises(
        SourceError, match=r"position_embeddings are .* another shape; .* interpolate_pos_encoding: true"
    ):
        load_network(entry(saved("vit"), kwargs={"image_size": 48}))
    options = {"kwargs": {"interpolate_pos_encoding": True}, "transform": {"size": 48}}
    network = load_network(entry(saved("vit"), **options))
    own = transformers.ViTForImageClassification.from_pretrained(saved("vit")).eval()
    with torch.no_grad():
        expected = own(images(2, 48), interpolate_pos_encoding=True).logits
        torch.testing.assert_close(network.module(images(2, 48)).logits, expected)
    assert len(resolve_stages(network.module, "auto", network.transform.blank(), cuts_only=True)) == STAGES["vit"]
    with pytest.raises(SourceError, match="ResNetForImageClassification takes no interpolate_pos_encoding"):
        load_network(entry(saved("resnet"), kwargs={"interpolate_pos_encoding": True}))


def test_a_pooling_layer_that_nobody_trained_is_left_out(saved, tmp_path):
    """Of what was trained by masked images, transformers would draw one."""
    config = transformers.BeitConfig(**TRANSFORMERS["beit"][2])
    transformers.BeitForMaskedImageModeling(config).save_pretrained(tmp_path)
    shutil.copy(saved("beit") / "preprocessor_config.json", tmp_path)
    module = load_network(entry(tmp_path)).module
    assert type(module).__name__ == "BeitModel"
    assert module.pooler is None
    # That of ViT is a dense layer and a tanh: no place for a classifier of one's own.
    assert load_network(entry(saved("vit-tower"))).module.pooler is None


def test_weights_that_are_missing_are_told(copy_of):
    folder = copy_of("vit")
    weights = load_file(folder / "model.safetensors")
    fewer = {key: value for key, value in weights.items() if "layernorm.weight" not in key}
    save_file(fewer, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        SourceError, match=r"not those of a ViTForImageClassification .* vit\.layernorm\.weight .* missing"
    ):
        load_network(entry(folder))
    (folder / "model.safetensors").unlink()
    for check in (load_network, outline):
        with pytest.raises(SourceError, match=r"'a': the folder .* has no weights for torch .*save_pretrained"):
            check(entry(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "model-00001-of-2.bin"}}))
    with pytest.raises(SourceError, match=r"has no model-00001-of-2\.bin, which model\.safetensors\.index\.json names"):
        load_network(entry(folder))


def test_a_body_without_its_classifier_is_noted(copy_of):
    folder = copy_of("vit")
    weights = load_file(folder / "model.safetensors")
    body = {key: value for key, value in weights.items() if "classifier" not in key}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    assert "classifier is not among the weights" in untrained(load_network(entry(folder)).module)


def test_what_is_no_network_for_images_is_refused(tmp_path):
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    config.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"\(bert\) is no network for images"):
        build_untrained(entry(tmp_path), seed=0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vitt"}))
    with pytest.raises(SourceError, match=r"knows no model_type 'vitt' \(did you mean 'vit"):
        build_untrained(entry(tmp_path), seed=0)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    with pytest.raises(SourceError, match="is a network of timm: use loader timm and model hf-hub:"):
        build_untrained(entry(tmp_path), seed=0)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SourceError, match=r"config\.json cannot be read"):
        build_untrained(entry(tmp_path), seed=0)


@pytest.mark.parametrize("place", [(), ("vision_config",)])
def test_a_backbone_from_elsewhere_is_not_looked_for(copy_of, monkeypatch, place):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    path = copy_of("vit") / "config.json"
    config = json.loads(path.read_text())
    part = config
    for key in place:
        part = part.setdefault(key, {})
    part |= {"backbone": "strangers/net", "use_pretrained_backbone": True}
    path.write_text(json.dumps(config))
    with pytest.raises(SourceError, match="built around another model, 'strangers/net'"):
        load_network(entry(path.parent))


def test_a_backbone_among_the_kwargs_is_refused(saved):
    with pytest.raises(SourceError, match="backbone among the kwargs takes another model in"):
        build_untrained(entry(saved("vit"), kwargs={"backbone": "strangers/net"}), seed=0)


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

open({ran!r}, "w").close()

class OwnConfig(PretrainedConfig):
    model_type = "own_of_ours"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    main_input_name = "pixel_values"
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        self.stem = torch.nn.Conv2d(3, 4, 3, stride=2)
        self.classifier = torch.nn.Linear(4, 5)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, pixel_values):
        return self.classifier(self.stem(pixel_values).relu().mean((2, 3)))
"""


def test_code_of_a_model_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "modeling_own.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    code = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForImageClassification": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own_of_ours", "auto_map": code}))
    state = {"stem.weight": torch.randn(4, 3, 3, 3), "stem.bias": torch.randn(4),
             "classifier.weight": torch.randn(5, 4), "classifier.bias": torch.randn(5)}  # fmt: skip
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    source = entry(folder, transform={"size": 16, "mean": [0.5], "std": [0.5]})
    with pytest.raises(SourceError, match=r"runs code of its own .*modeling_own\.OwnModel.*--trust-code"):
        load_network(source)
    assert not (tmp_path / "ran").exists()
    module = load_network(source, trust_code=True).module
    assert (tmp_path / "ran").exists()
    assert torch.equal(module.stem.weight, state["stem.weight"])
    assert not untrained(module)


@pytest.mark.parametrize("name", ["vit", "swin", "beit", "convnext", "dinov2"])
def test_checkpoints_by_names_in_files_and_in_memory(name, saved, tmp_path):
    """The two differ since transformers 5; a file of `torch.save(net.state_dict())` has the latter."""
    own = load_network(entry(saved(name))).module
    torch.save({f"module.{key}": value for key, value in own.state_dict().items()}, tmp_path / "memory.pt")
    files = load_file(saved(name) / "model.safetensors")
    torch.save({"state_dict": files}, tmp_path / "files.pt")
    for checkpoint in ("memory.pt", "files.pt", saved(name) / "model.safetensors"):
        source = entry(saved(name), checkpoint=str(tmp_path / checkpoint))
        module = load_network(source).module
        theirs = module.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in own.state_dict().items())
        assert bool(untrained(module)) == (name not in CLASSIFIERS)
        assert check_sources(load_zoo([source])) == ([], [])


def test_a_checkpoint_for_another_loader_says_which(saved):
    keys = {"name": "a", "loader": "timm", "model": "vit_tiny_patch16_224"}
    source = load_zoo([{**keys, "checkpoint": str(saved("vit") / "model.safetensors")}])["a"]
    with pytest.raises(SourceError, match=r"its names are those of transformers: use that loader, with the folder"):
        load_network(source)


def test_random_weights_follow_the_seed(saved):
    first, again, other = (load_network(entry(saved("vit"), weights="none"), seed=s).module for s in (1, 1, 2))
    weight = "vit.embeddings.patch_embeddings.projection.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert "drawn at random" in untrained(first)
    assert {value.device.type for value in outline(entry(saved("vit"))).parameters()} == {"meta"}


def test_a_folder_is_known_by_what_it_holds(saved, copy_of):
    before = fingerprint(entry(saved("vit")))
    folder = copy_of("vit")
    (folder / "README.md").write_text("of no matter")
    assert fingerprint(entry(folder)) == before
    assert fingerprint(entry(saved("vit"), kwargs={"num_labels": 3})) != before
    assert fingerprint(entry(saved("swin"))) != before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    assert fingerprint(entry(folder)) != before
    assert architecture(entry(saved("vit"), weights="none")) == architecture(entry(saved("vit")))


def test_a_folder_beside_the_zoo_file_is_found(saved, tmp_path):
    shutil.copytree(saved("vit"), tmp_path / "models" / "vit")
    (tmp_path / "zoo.yaml").write_text(
        "version: 1\nsources:\n"
        "  - {name: a, loader: transformers, model: models/vit}\n"
        "  - {name: b, loader: transformers, model: ./models/vitt}\n"
        "  - {name: c, loader: transformers, model: google/vit-base-patch16-224}\n"
        "  - {name: d, loader: transformers, model: a/b/c}\n"
        "  - {name: e, loader: transformers, model: ./models}\n"
    )
    zoo = load_zoo(tmp_path / "zoo.yaml")
    assert zoo["a"].model == str(tmp_path / "models" / "vit")
    assert zoo["c"].model == "google/vit-base-patch16-224"
    problems, unchecked = check_sources(zoo)
    assert [problem.partition(": ")[2] for problem in problems] == [
        f"sources[1] (b).model: there is no folder {tmp_path}/models/vitt (did you mean 'vit'?)",
        "sources[3] (d).model: 'a/b/c' is no name on the Hugging Face hub: expected owner/name, or the path of a "
        "folder, ./ before it",
        f"sources[4] (e).model: the folder {tmp_path}/models is no model, for it has no config.json; correct the path",
    ]
    assert unchecked == []
    with pytest.raises(SourceError, match=r"source 'b': there is no folder .*vitt"):
        load_network(zoo["b"])


def test_nothing_is_printed(saved, capfd):
    load_network(entry(saved("clip")))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.ERROR  # as it was set by the test


def test_a_checkpoint_of_another_model_is_a_sentence(saved):
    source = entry(saved("vit"), checkpoint=str(saved("swin") / "model.safetensors"))
    with pytest.raises(SourceError, match=r"source 'a': checkpoint .* does not fit"):
        load_network(source)
