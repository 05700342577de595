"""Wrapped networks, and transfers of networks that are easily run in a way that they do not take."""

from pathlib import Path
from typing import Any

import timm
import torch

from reading.cases import networks
from reading.cases.asking import all_done, layers, made_by, measure, of_timm, rank, statuses, zoo
from reading.cases.case import Case, Found

KIND = "Wrappers and transfers"


def _wrapped(factory: str, folder: Path) -> Found:
    path = zoo(folder, plain=made_by("residual"), wrapped=made_by(factory))
    if layers(path, "plain") != layers(path, "wrapped"):
        return Found("`layers` lists others than of the network inside", False)
    answer = rank(folder, path)
    one, other = answer.accuracy("plain"), answer.accuracy("wrapped")
    if other is None:
        return Found(answer.said[-1], False)
    runs = measure(folder, path, "truncate,reinit,finetune", [2])
    own = [run for run in runs if run["source"] == "wrapped"]
    accuracies = {
        name: {run["protocol"]: run["accuracy"] for run in runs if run["source"] == name}
        for name in ("plain", "wrapped")
    }
    equal = accuracies["plain"] == accuracies["wrapped"]
    text = "the same in all verbs" if one == other and equal else f"measured: {statuses(own)}"
    return Found(text, one == other and equal and all_done(own))


def _reinit(model: str, size: int, kwargs: dict[str, Any], folder: Path) -> Found:
    net = networks.drawn(timm.create_model, model, num_classes=10, **kwargs)
    torch.save(net.state_dict(), folder / "net.pt")
    entry = of_timm(model, size, checkpoint="net.pt", kwargs={"num_classes": 10, **kwargs})
    runs = measure(folder, zoo(folder, net=entry), "reinit,finetune")
    return Found(statuses(runs), all_done(runs))


SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}

CASES = (
    *(
        Case(
            what,
            "as the network inside, in `layers`, `rank` and `measure`",
            lambda folder, name=name: _wrapped(name, folder),
        )
        for what, name in {
            "A network that `torch.compile` returned": "compiled",
            "A network in `DataParallel`": "parallel",
            "A network in `AveragedModel`": "averaged",
            "A network whose parameters are frozen": "frozen",
        }.items()
    ),
    *(
        Case(
            f"{what}: `measure --protocols reinit,finetune`",
            "both are run",
            lambda folder, model=model, size=size, kwargs=kwargs: _reinit(model, size, kwargs, folder),
        )
        for what, model, size, kwargs in (
            ("A vision transformer", "vit_tiny_patch16_224", 32, VIT),
            ("The same with `dynamic_img_size`", "vit_tiny_patch16_224", 32, VIT | {"dynamic_img_size": True}),
            ("A Swin transformer", "swin_tiny_patch4_window7_224", 64, SWIN),
            ("A MobileViT", "mobilevit_xxs", 64, {}),
        )
    ),
)
