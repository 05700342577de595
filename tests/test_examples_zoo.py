"""The zoo files among the examples, and the seven real networks where they are at hand."""

import io
import re
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from transferscope.activations.capture import resolve_stages
from transferscope.data.images import image_rgb
from transferscope.networks.loading import build_untrained, load_network
from transferscope.networks.zoo import Source, TransformOptions, Zoo, check_files, load_zoo

EXAMPLES = Path(__file__).parents[1] / "examples"
IMAGES_PER_CLASS = 30


@pytest.mark.parametrize("name", ["zoo-timm.yaml", "zoo-torchvision.yaml", "zoo-hub.yaml"])
def test_the_zoo_files_name_models_that_exist(name):
    if name == "zoo-hub.yaml":  # of transformers no names are looked up, for they are on the hub
        pytest.importorskip("transformers")
        open_clip = pytest.importorskip("open_clip")
        assert open_clip.is_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    zoo = load_zoo(EXAMPLES / name)
    assert len(zoo) >= 4
    assert check_files(zoo) == []


def test_the_zoo_of_own_networks_explains_every_key(tmp_path):
    text = (EXAMPLES / "zoo-own.yaml").read_text()
    for model in (Zoo, Source, TransformOptions):
        for key in model.model_fields:
            assert re.search(rf"\b{key}:", text), key
    for name in ("zoo-own.yaml", "cifar_resnet.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    zoo = load_zoo(tmp_path / "zoo-own.yaml")
    # Factory and model exist; what is missing are the files that are the reader's own.
    missing = check_files(zoo)
    assert len(missing) == 4
    for problem, key in zip(missing, ("checkpoint", "initial", "images", "checkpoint"), strict=True):
        assert key in problem

    weights = build_untrained(zoo["our-resnet"], seed=1, trust_code=True).state_dict()
    save_file(weights, tmp_path / "our-resnet.safetensors")
    torch.save(build_untrained(zoo["our-mobilenet"], seed=1).state_dict(), tmp_path / "our-mobilenet.pt")
    for name, layers in (("our-resnet", 11), ("our-mobilenet", 19)):
        network = load_network(zoo[name], trust_code=name == "our-resnet")
        size = network.transform.size
        assert len(resolve_stages(network.module, zoo[name].layers, torch.zeros(1, 3, size, size))) == layers
    torch.testing.assert_close(load_network(zoo["our-resnet"], trust_code=True).module.state_dict(), weights)


@pytest.mark.parametrize(("depth", "params"), [(20, 0.27e6), (32, 0.46e6), (44, 0.66e6), (56, 0.85e6)])
def test_the_cifar_resnets_have_the_papers_size(depth, params):
    """Table 6 of He et al. 2015 counts parameters to two digits."""
    module = build_untrained(load_zoo(EXAMPLES / "zoo-cifar-resnet.yaml")[f"resnet{depth}-cifar10"],
                             seed=0, trust_code=True)  # fmt: skip
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(params, abs=0.006e6)
    # one convolution at the start and one linear layer at the end; the shortcuts have none
    assert sum(p.ndim > 1 for p in module.parameters()) == depth
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not any(getattr(part, "inplace", False) for part in module.modules())


def test_shortcuts_keep_every_second_pixel_and_pad_with_zeros():
    source = load_zoo(EXAMPLES / "zoo-cifar-resnet.yaml")["resnet20-cifar10"]
    module = build_untrained(source, seed=0, trust_code=True)
    x = torch.arange(1.0, 1 + 16 * 6 * 6).view(1, 16, 6, 6)
    out = module.layer2[0].shortcut(x)
    assert out.shape == (1, 32, 3, 3)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


@pytest.fixture(scope="module")
def cifar(real_folder):
    """Some images of the test split, and their classes in alphabetical order."""
    with zipfile.ZipFile(real_folder / "data" / "cifar10.zip") as archive:
        names = sorted(name for name in archive.namelist() if "/test/" in name and name.endswith(".jpg"))
        folders = sorted({name.split("/")[2] for name in names})
        chosen = [name for folder in folders for name in
                  [name for name in names if f"/test/{folder}/" in name][:IMAGES_PER_CLASS]]  # fmt: skip
        images = [image_rgb(Image.open(io.BytesIO(archive.read(name)))) for name in chosen]
    labels = torch.tensor([folders.index(name.split("/")[2]) for name in chosen])
    assert len(images) == 10 * IMAGES_PER_CLASS
    return images, labels


def test_the_real_cifar_resnets_recognise_their_images(real_folder, cifar, tmp_path):
    for name in ("zoo-cifar-resnet.yaml", "cifar_resnet.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    for path in (real_folder / "zoo").glob("resnet*.th"):
        (tmp_path / path.name).symlink_to(path)
    zoo = load_zoo(tmp_path / "zoo-cifar-resnet.yaml")
    assert check_files(zoo) == []
    images, labels = cifar
    for source in zoo:
        network = load_network(source, trust_code=True)
        with torch.inference_mode():
            logits = network.module(torch.stack([network.transform(image) for image in images]))
        # The compression of these images costs about ten points; a wrong shortcut or channel order far more.
        assert (logits.argmax(1) == labels).float().mean() > 0.75, source.name


@pytest.mark.parametrize(("task", "classes"), [("imagenet", 1001), ("inat-bird", 965), ("inat-insect", 1022)])
def test_the_real_mobilenets_load(real_folder, task, classes):
    entry = {
        "name": task,
        "loader": "timm",
        "model": "mobilenetv2_100",
        "checkpoint": str(real_folder / "zoo" / f"mobilenetv2-{task}.safetensors"),
        "kwargs": {"pad_type": "same", "num_classes": classes},
        "transform": {"size": 96, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }
    network = load_network(load_zoo([entry])[task])
    assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert network.module(torch.zeros(1, 3, 96, 96)).shape == (1, classes)
