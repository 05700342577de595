"""The tools that `similarity.py` times, each called as its own documentation says, over the same networks and batches.

Imported in worker processes only; no peer is imported before its adapter is asked to `load`.
"""

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


@dataclass
class Work:
    """Two networks, the layers to compare (the same names in both) and the image batches."""

    net_x: nn.Module
    net_y: nn.Module
    layers: list[str]
    batches: list[torch.Tensor]
    device: str = "cpu"


class ReadyBatches(Dataset):
    """Batches made beforehand, so that no tool's time holds collation; `fields` is 1 (images) or 2 (and labels)."""

    def __init__(self, batches: Sequence[torch.Tensor], fields: int) -> None:
        self.batches, self.fields = batches, fields

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        images = self.batches[index]
        return (images,) if self.fields == 1 else (images, torch.zeros(len(images)))


def loader(work: Work, fields: int = 1) -> DataLoader:
    """Return a loader over the ready batches, in order."""
    return DataLoader(ReadyBatches(work.batches, fields), batch_size=None)


@contextlib.contextmanager
def recorded(net: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Append a flattened copy of what each layer gives, at each forward pass inside the block."""
    kept: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    modules = dict(net.named_modules())

    def keep(layer: str) -> Callable[..., None]:
        return lambda _module, _args, output: kept[layer].append(output.detach().flatten(1).clone())

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            yield kept
    finally:
        for handle in handles:
            handle.remove()


def all_activations(net: nn.Module, work: Work) -> list[torch.Tensor]:
    """Return the activations (n_samples, n_features) of every layer over all batches."""
    with recorded(net, work.layers) as kept:
        for batch in work.batches:
            net(batch.to(work.device))
    return [torch.cat(kept.pop(layer)) for layer in work.layers]


class Playback(nn.Module):
    """A network whose forward pass costs nothing: its layers hand out activations that were made beforehand."""

    def __init__(self, activations: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.activations = activations
        self.layers = nn.ModuleList(nn.Identity() for _ in activations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Send every stored activation through its layer."""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            layer(activation)
        return x


@dataclass
class Tool:
    """One tool: how it is called for networks and for arrays, and what it says it computes."""

    name: str
    package: str
    module: str
    estimator: str | None
    """The reference that it claims to compute; None: the nearest debiased one."""
    computes: str
    rows: bool = False
    """Activations must reach it as (1, n, p)."""
    last_batch: bool = False
    """Only the last batch counts in its answer."""
    parts: dict[str, Any] = field(default_factory=dict)

    def load(self) -> None:
        """Import the package."""
        self.parts["root"] = importlib.import_module(self.module)

    def networks(self, work: Work) -> Any:
        """Return the matrix of similarities, layers of X by layers of Y."""
        return self.arrays(all_activations(work.net_x, work), all_activations(work.net_y, work))

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """Return the same from activations; without such a call, a network plays them back."""
        layers = [f"layers.{i}" for i in range(len(xs))]
        ready = torch.zeros(len(xs[0]), 1)
        return self.networks(Work(Playback(xs), Playback(ys), layers, [ready], xs[0].device.type))


class Transferscope(Tool):
    """`compare` and `MinibatchCKA` of transferscope."""

    def networks(self, work: Work) -> Any:
        """`compare` over a loader."""
        return (
            self.parts["root"]
            .compare(
                work.net_x,
                work.net_y,
                loader(work),
                measure="linear_cka",
                layers_x=work.layers,
                layers_y=work.layers,
                device=work.device,
            )
            .to_numpy()
        )

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """`MinibatchCKA` with one batch."""
        convert = importlib.import_module("cupy").asarray if xs[0].is_cuda else torch.Tensor.numpy
        cka = self.parts["root"].similarity.MinibatchCKA()
        cka.update([convert(x) for x in xs], [convert(y) for y in ys])
        result = cka.result()
        return result.get() if xs[0].is_cuda else result


class PytorchCKA(Tool):
    """`compute_cka` and `cka_from_features` of pytorch-cka."""

    def networks(self, work: Work) -> Any:
        """As in its README, without the progress bar."""
        return self.parts["root"].compute_cka(
            work.net_x,
            work.net_y,
            loader(work),
            layers=work.layers,
            model2_layers=work.layers,
            device=work.device,
            progress=False,
        )[0]

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """As in its README, sequences of matrices."""
        with torch.inference_mode():
            return self.parts["root"].cka_from_features(xs, ys)


class TorchCKA(Tool):
    """`CKA(...).compare(...)` of torch_cka."""

    def networks(self, work: Work) -> Any:
        """As in its README, but under `no_grad`, without which it also keeps the graph of both networks."""
        names = {"model1_name": "x", "model2_name": "y"}
        cka = self.parts["root"].CKA(
            work.net_x,
            work.net_y,
            **names,
            model1_layers=work.layers,
            model2_layers=work.layers,
            device=work.device,
        )
        ready = loader(work)
        with torch.no_grad():
            cka.compare(ready, ready)
        return cka.export()["CKA"]


class CKAPytorch(Tool):
    """`CKACalculator` of cka-pytorch."""

    def networks(self, work: Work) -> Any:
        """As in its README, one epoch instead of ten; fewer pairs at a time than 256 where they would not fit."""
        n = len(work.batches[0])
        calculator = self.parts["root"].CKACalculator(
            work.net_x,
            work.net_y,
            model1_layers=work.layers,
            model2_layers=work.layers,
            batched_feature_size=max(1, min(256, int(5e7 / n**2))),
            device=torch.device(work.device),
            verbose=False,
        )
        return calculator.calculate_cka_matrix(loader(work, 2), num_epochs=1)


class CKATorch(Tool):
    """`CKA(...)(loader)` and `cka_batch` of ckatorch."""

    def networks(self, work: Work) -> Any:
        """As in its README, one epoch instead of ten."""
        cka = self.parts["root"].CKA(
            work.net_x, work.net_y, work.layers, work.layers, first_name="x", second_name="y", device=work.device
        )
        return cka(loader(work), epochs=1)

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """Its array function, pair by pair."""
        function = importlib.import_module("ckatorch.core").cka_batch
        return torch.tensor([[float(function(x[None], y[None])) for y in ys] for x in xs])


class Anatome(Tool):
    """`linear_cka_distance` of anatome, over activations that are collected for it."""

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """Its array function, pair by pair."""
        function = importlib.import_module("anatome.distance").linear_cka_distance
        return torch.tensor([[1 - float(function(x, y, reduce_bias=False)) for y in ys] for x in xs])


class Netrep(Tool):
    """`LinearCKA` of netrep, over activations that are collected for it."""

    def arrays(self, xs: list[torch.Tensor], ys: list[torch.Tensor]) -> Any:
        """Its array class, pair by pair; it gives the angle, whose cosine is CKA."""
        metric = importlib.import_module("netrep.metrics").LinearCKA()
        left, right = [x.cpu().numpy() for x in xs], [y.cpu().numpy() for y in ys]
        return torch.tensor([[math.cos(metric.score(x, y)) for y in right] for x in left])


OURS = "transferscope"
TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Transferscope(OURS, OURS, OURS, None, "debiased; each layer's Gram made once, all pairs in one product"),
        PytorchCKA(
            "pytorch-cka",
            "pytorch-cka",
            "cka",
            "minibatch debiased",
            "unbiased HSIC summed over batches; keeps all activations of a batch, then one uncentred float32 Gram a "
            "layer, all pairs in one contraction, sums in float32; clamped to [0, 1]",
        ),
        TorchCKA(
            "torch_cka",
            "torch_cka",
            "torch_cka",
            "minibatch debiased",
            "unbiased HSIC summed over batches; uncentred float32 Grams, that of Y and its self-HSIC again for every "
            "pair, n³ for each HSIC; an error where anything is NaN",
        ),
        CKAPytorch(
            "cka-pytorch",
            "cka-pytorch",
            "cka_pytorch",
            "minibatch debiased",
            "unbiased HSIC summed over batches; uncentred float32 Grams inside the hooks, n³ for each pair; 1e-4 added "
            "under the root",
        ),
        CKATorch(
            "ckatorch",
            "ckatorch",
            "ckatorch",
            "last batch debiased",
            "unbiased HSIC in float64, both Grams and three n³ products again for every pair; the last batch only, "
            "which overwrites the others; takes the first axis for batches, so that it is given (1, n, p)",
            rows=True,
            last_batch=True,
        ),
        Anatome(
            "anatome",
            "anatome",
            "anatome",
            "biased",
            "biased, in feature space (p × p), all three again for every pair",
        ),
        Netrep("netrep", "netrep", "netrep", "biased", "biased, its angle; both Grams again for every pair"),
    )
}
