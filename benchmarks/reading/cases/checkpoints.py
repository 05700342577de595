"""Checkpoints as they are left behind by training: the weights somewhere in them, under other names."""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from reading.cases.asking import NETWORKS, layers, listed, of_timm, validated, warned, zoo
from reading.cases.case import Case, Found
from reading.verbs import command
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo

KIND = "Checkpoints"
MODEL = "test_resnet"

State = dict[str, Tensor]


def _net(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(MODEL, num_classes=classes)


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def _loaded(path: Path, right: State, source: str = "net") -> Found:
    """Load a source, and compare every parameter and buffer but a classifier with those that were trained."""
    got = load_network(load_zoo(path)[source], trust_code=True).module.state_dict()
    differing = [name for name, tensor in right.items() if not torch.equal(got[name], tensor)]
    if differing:
        return Found(f"loaded, but {len(differing)} tensors are not those of the file ({differing[0]} …)", False)
    return Found("loaded, every tensor that of the file", True)


def _saved(make: Callable[[nn.Module, Path], Any], name: str, classes: int, folder: Path, **keys: Any) -> Found:
    net = _net(classes)
    content = make(net, folder / name)
    if content is not None:
        torch.save(content, folder / name)
    entry = of_timm(MODEL, checkpoint=name, kwargs={"num_classes": classes}, **keys)
    return _loaded(zoo(folder, net=entry), net.state_dict())


def _averaged(net: nn.Module, path: Path) -> Any:
    average = AveragedModel(net, use_buffers=True)
    average.update_parameters(net)
    return average.state_dict()


def _lightning(net: nn.Module, path: Path, **more: Tensor) -> Any:
    return {
        "epoch": 3,
        "global_step": 90,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": _prefixed("model.", net.state_dict()) | more,
        "loops": {},
        "callbacks": {},
        "optimizer_states": [{"state": {}}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3},
    }


def _of_timm(net: nn.Module, path: Path) -> None:
    from timm.utils import CheckpointSaver

    optimiser = torch.optim.SGD(net.parameters(), 0.1)
    folder = str(path.parent)
    saver = CheckpointSaver(
        net, optimiser, args=argparse.Namespace(model=MODEL, lr=0.1), checkpoint_dir=folder, recovery_dir=folder
    )
    saver.save_checkpoint(0, metric=81.2)


def _moco(net: nn.Module, path: Path) -> Any:
    other = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    query, key = _prefixed("module.encoder_q.", net.state_dict()), _prefixed("module.encoder_k.", other)
    return {"epoch": 200, "state_dict": query | key | {"module.queue": torch.zeros(8, 4)}}


def _dino(net: nn.Module, path: Path) -> Any:
    other = {name: torch.zeros_like(tensor) for name, tensor in net.state_dict().items()}
    head = {"head.mlp.0.weight": torch.zeros(2, 2)}
    return {
        "student": _prefixed("module.backbone.", other) | _prefixed("module.", head),
        "teacher": _prefixed("backbone.", net.state_dict()) | head,
        "epoch": 100,
    }


def _mmpretrain(net: nn.Module, path: Path) -> Any:
    head = {"head.fc.weight": torch.zeros(10, 4), "head.fc.bias": torch.zeros(10)}
    return {"meta": {"epoch": 100}, "state_dict": _prefixed("backbone.", net.state_dict()) | head}


def _two_networks(folder: Path) -> Found:
    net = _net()
    torch.save(_dino(net, folder), folder / "two.pth")
    entry = of_timm(MODEL, checkpoint="two.pth", kwargs={"num_classes": 10})
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        found = _loaded(zoo(folder, net=entry), net.state_dict())
    said = " ".join(warned(notes))
    return Found(f"{found.now}; warning: {said}", found.right and "teacher" in said and "checkpoint_key" in said)


def _tied(folder: Path) -> Found:
    from reading.cases.networks import tied

    net = tied()
    save_model(net, str(folder / "tied.safetensors"))
    entry = {
        "loader": "python",
        "factory": f"{NETWORKS}:tied",
        "kwargs": {"seed": 1},
        "checkpoint": "tied.safetensors",
        "transform": {"size": 32},
    }
    return _loaded(zoo(folder, net=entry), net.state_dict())


def _resized(folder: Path) -> Found:
    def build(size: int) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model("test_vit", img_size=size, num_classes=10)

    torch.save(build(64).state_dict(), folder / "larger.pt")
    wanted = build(32)
    from timm.models.vision_transformer import checkpoint_filter_fn

    right = checkpoint_filter_fn(build(64).state_dict(), wanted)
    entry = of_timm("test_vit", checkpoint="larger.pt", kwargs={"img_size": 32, "num_classes": 10})
    return _loaded(zoo(folder, net=entry), dict(right))


def _wrong_shape(folder: Path) -> Found:
    torch.save(_net(7).state_dict(), folder / "seven.pt")
    entry = of_timm(MODEL, checkpoint="seven.pt", kwargs={"num_classes": 10})
    said = validated(zoo(folder, net=entry))
    if said.code == 0:
        return Found("loaded", False)
    return Found(f"error: {said.error}", "7" in said.error and "10" in said.error)


def _unknown_names(folder: Path) -> Found:
    state = _prefixed("image_tower.trunk.", _net().state_dict())
    state = {name.replace("layer", "part"): tensor for name, tensor in state.items()}
    torch.save(state, folder / "renamed.pt")
    entry = of_timm(MODEL, checkpoint="renamed.pt", kwargs={"num_classes": 10})
    said = validated(zoo(folder, net=entry))
    names_both = "image_tower.trunk" in said.error and "layer1" in said.error and "kwargs" not in said.error
    return Found(f"error: {said.error}", said.code != 0 and names_both)


def _no_weights(folder: Path) -> Found:
    path = zoo(folder, net=of_timm(MODEL, weights="none", kwargs={"num_classes": 10}))
    stages = layers(path, "net")
    if not stages:
        return Found(f"error: {listed(path, 'net').error}", False)
    torch.manual_seed(0)
    module = load_network(load_zoo(path)["net"]).module
    return Found(f"{len(stages)} stages, drawn at random", len(module.state_dict()) == len(_net().state_dict()))


def _layers_without(folder: Path) -> Found:
    entry = of_timm("resnet18", 64, checkpoint="absent.pt", kwargs={"num_classes": 10})
    said = listed(zoo(folder, net=entry), "net")
    stages = layers(folder / "zoo.yaml", "net")
    return Found(f"{len(stages)} stages" if stages else f"error: {said.error}", bool(stages))


def _validated(folder: Path) -> Found:
    state = _prefixed("image_tower.", {name: t for name, t in _net().state_dict().items() if t.is_floating_point()})
    from safetensors.torch import save_file

    wrong = {name: torch.zeros(3, 3) if tensor.ndim == 4 else tensor for name, tensor in state.items()}
    save_file(wrong, str(folder / "net.safetensors"))
    entry = of_timm(MODEL, checkpoint="net.safetensors", kwargs={"num_classes": 10})
    said = command("validate", str(zoo(folder, net=entry)))
    return Found(
        said.error or " ".join(said.stdout.split()), "net.safetensors" in said.error + said.stdout and said.code != 0
    )


LOADED = "loaded, every tensor that of the file"

CASES = (
    Case(
        "An average of weights (`AveragedModel`: `n_averaged` beside them)",
        LOADED,
        lambda f: _saved(_averaged, "ema.pth", 10, f),
    ),
    Case(
        "The same under `model_ema`, beside an epoch",
        LOADED,
        lambda f: _saved(lambda net, path: {"model_ema": _averaged(net, path), "epoch": 3}, "wrapped.pth", 10, f),
    ),
    Case("A file of Lightning's, `.ckpt`", LOADED, lambda f: _saved(_lightning, "last.ckpt", 10, f)),
    Case(
        "The same with the weights of a loss and the counters of a metric",
        LOADED,
        lambda f: _saved(
            lambda net, path: _lightning(
                net, path, **{"criterion.weight": torch.ones(10), "accuracy.tp": torch.zeros(10)}
            ),
            "loss.pt",
            10,
            f,
        ),
    ),
    Case(
        "A training file of timm's, `model_best.pth.tar`, an `argparse.Namespace` in it",
        LOADED,
        lambda f: _saved(_of_timm, "model_best.pth.tar", 10, f),
    ),
    Case("Tied weights in safetensors, one name of them in the file", LOADED, _tied),
    Case(
        "MoCo: `encoder_q`, `encoder_k` and a queue",
        LOADED + " (of the query)",
        lambda f: _saved(_moco, "moco.pth", 0, f),
    ),
    Case("MMPreTrain: `backbone.` and a head", LOADED, lambda f: _saved(_mmpretrain, "mm.pth", 0, f)),
    Case(
        "`encoder.` before every name",
        LOADED,
        lambda f: _saved(lambda net, path: _prefixed("encoder.", net.state_dict()), "encoder.pth", 0, f),
    ),
    Case(
        "DINO: a student and a teacher, `checkpoint_key: teacher`",
        LOADED,
        lambda f: _saved(_dino, "dino.pth", 0, f, checkpoint_key="teacher"),
    ),
    Case("The same without `checkpoint_key`", "the teacher, as DINO does, and that is said", _two_networks),
    Case("Position embeddings of another size", "resampled as timm does", _resized),
    Case("A classifier of another width than `num_classes`", "refused, with both widths", _wrong_shape),
    Case("Names that fit nothing", "refused, with names of both sides and without a word of `kwargs`", _unknown_names),
    Case("`weights: none`", "a network drawn at random", _no_weights),
    Case("`layers` of an architecture without its weights", "its stages", _layers_without),
    Case("`validate`, with shapes in a safetensors file that do not fit", "said", _validated),
)
