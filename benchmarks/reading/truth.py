"""What timm itself says of a network, against what is captured of it: a misreading that raises nothing shows here.

Each check returns an empty string, or what is wrong; a refusal is raised as ever. The truths are timm's
`forward_intermediates` (layout and values of feature maps and tokens), `get_classifier` (what reads the last features)
and `has_class_token`, the autograd engine (which parameters a cut depends on), and the network itself run on one image
at a time.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import transferscope as ts
from transferscope.activations.capture import resolve_stages
from transferscope.errors import CaptureError
from transferscope.networks.loading import Network

IMAGES = 3
SEVERAL = 5
"""Images in a batch: no usual number of tokens, channels or rows."""


class Truths:
    """One network with what timm makes of some images.

    Parameters
    ----------
    network : Network
        As transferscope loads it: of timm, in evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.net = network, network.module
        _spread(self.net)
        self._fresh = copy.deepcopy(self.net)
        sample = network.transform.blank()
        self.images = torch.rand((SEVERAL, *sample.shape[1:]), generator=torch.Generator().manual_seed(0))
        self.stages = [stage.layer for stage in resolve_stages(self.net, "auto", sample)]
        self.params = {stage.layer: stage.params for stage in resolve_stages(self.net, "auto", sample)}
        self.raw = self._captured(self.images, None)
        self.maps = dict(self._known_maps())

    def checks(self) -> dict[str, Callable[[], str]]:
        """Return the checks by name."""
        return {
            "images": self.one_image_at_a_time,
            "layout": self.layout,
            "tokens": self.tokens,
            "classifier": self.classifier_input,
            "parameters": self.parameters,
            "cut": self.cuts,
        }

    def one_image_at_a_time(self) -> str:
        """Tell whether an image has the same features alone as in a batch."""
        together = self._captured(self.images, "mean")
        for index in range(2):
            alone = self._captured(self.images[index : index + 1], "mean")
            for layer, rows in together.items():
                if len(rows) != SEVERAL:
                    return f"{layer}: {len(rows)} rows for {SEVERAL} images"
                if not _close(alone[layer][0], rows[index]):
                    return f"{layer}: another value alone than in a batch"
        return ""

    def layout(self) -> str:
        """Tell whether means and positions of feature maps are those of timm's own (n, c, h, w)."""
        for layer, (maps, prefix) in self.maps.items():
            if prefix:
                continue
            wanted = {
                "mean": maps.mean((2, 3)),
                "positions": maps.permute(0, 2, 3, 1).flatten(0, 2),
                "flatten": maps.flatten(1),
            }
            for reduction, right in wanted.items():
                got = self._captured(self.images, reduction, [layer])[layer]
                if reduction == "flatten":  # in any order: it is compared by its values
                    got, right = got.sort(1).values, right.sort(1).values
                if got.shape != right.shape or not _close(got, right):
                    return (
                        f"{layer} {reduction}: {tuple(got.shape)} for {tuple(self.raw[layer].shape)}, which timm reads "
                        f"as (n, c, h, w) = {tuple(maps.shape)}"
                    )
        return ""

    def tokens(self) -> str:
        """Tell whether patches and class token are those that timm names."""
        for layer, (maps, prefix) in self.maps.items():
            if self.raw[layer].ndim != 3:
                continue
            rows = self._captured(self.images, "positions", [layer])[layer]
            right = maps.permute(0, 2, 3, 1).flatten(0, 2)
            if rows.shape != right.shape or not _close(rows, right):
                return f"{layer} positions: {len(rows) // SEVERAL} an image, {len(right) // SEVERAL} patches in timm"
            has_class = bool(
                getattr(self.net, "has_class_token", False) or getattr(self.net, "cls_token", None) is not None
            )
            try:
                token = self._captured(self.images, "class_token", [layer])[layer]
            except CaptureError as error:
                if has_class and prefix:
                    return f"{layer} class_token: {error}"
                continue
            if not (has_class and prefix):
                return f"{layer} class_token: one was found where timm has none ({prefix} special tokens)"
            if not _close(token, self.raw[layer][:, 0]):
                return f"{layer} class_token: another token"
        return ""

    def classifier_input(self) -> str:
        """Tell whether the last stage's features are what timm's classifier reads, or one of several."""
        heads = self.net.get_classifier()
        weights = list(heads) if isinstance(heads, (tuple, list)) else [heads]
        for head in tuple(weights):  # some begin with a norm
            weights += [module for module in head.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1:]
        inputs: list[Tensor] = []
        handles = [module.register_forward_pre_hook(lambda _m, args: inputs.append(args[0])) for module in weights]
        try:
            with torch.inference_mode():
                self.net(self.images)
        finally:
            for handle in handles:
                handle.remove()
        last = self.stages[-1]
        got = self._captured(self.images, "mean", [last])[last]
        rights = [
            {3: lambda x: x.mean(1), 4: lambda x: x.mean((2, 3))}.get(each.ndim, lambda x: x)(each) for each in inputs
        ]
        rights += [sum(rights) / len(rights)] if len({each.shape for each in rights}) == 1 else []
        if any(right.shape == got.shape and _close(got, right) for right in rights):
            return ""
        # Of tokens the classifier may read one, where a stage has the mean of all.
        tokens = list(self.raw[last].unbind(1)) if self.raw[last].ndim == 3 else []
        if any(right.shape == token.shape and _close(token, right) for right in rights for token in tokens):
            return ""
        return f"{last} {tuple(self.raw[last].shape[1:])}: not what the classifier reads"

    def parameters(self) -> str:
        """Tell whether the parameters of a cut are those that get a gradient from its output."""
        for layer in (self.stages[len(self.stages) // 2], self.stages[-1]):
            # Some keep what they computed in evaluation, LeViT its attention biases, and have no gradient there again.
            net = copy.deepcopy(self._fresh).requires_grad_(True)
            path, _, call = layer.partition(":")
            outputs: list[Any] = []
            handle = net.get_submodule(path).register_forward_hook(lambda _m, _a, out, kept=outputs: kept.append(out))
            with torch.enable_grad():
                net(self.images[:1].clone())
            handle.remove()
            output = outputs[int(call or 1) - 1]
            while not isinstance(output, Tensor):
                output = next(iter(output.values())) if isinstance(output, dict) else output[0]
            parameters = list(net.parameters())
            gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
            reached = sum(p.numel() for p, grad in zip(parameters, gradients, strict=True) if grad is not None)
            if reached != self.params[layer]:
                return f"{layer}: {self.params[layer]} parameters, {reached} get a gradient"
        return ""

    def cuts(self) -> str:
        """Tell whether a network that is cut gives the stage's own output."""
        depths = len(self.stages)
        for depth in sorted({1, (depths + 1) // 2, depths}):
            prefix, _ = ts.cut(self.network, depth, "truncate", 3).divided()
            layer = self.stages[depth - 1]
            with torch.inference_mode():
                got = prefix(self.images)
            if got.shape != self.raw[layer].shape or not _close(got, self.raw[layer]):
                return f"cut after {layer}: another output than in the whole network"
        return ""

    def _captured(self, images: Tensor, reduce: Any, layers: Any = None) -> dict[str, Tensor]:
        with ts.capture(self.net, layers or self.stages, reduce=reduce) as activations:
            self.net(images)
        return dict(activations)

    def _known_maps(self) -> Iterator[tuple[str, tuple[Tensor, int]]]:
        """Yield stages that are among timm's maps, with the map in (n, c, h, w) and the number of special tokens."""
        with torch.inference_mode():
            maps = self.net.forward_intermediates(self.images, output_fmt="NCHW", intermediates_only=True)
        for layer, tensor in self.raw.items():
            for candidate in maps:
                if candidate.ndim != 4:
                    continue
                _, c, h, w = candidate.shape
                rows = candidate.permute(0, 2, 3, 1)
                if tensor.shape in (candidate.shape, rows.shape):
                    same = [t for t in (candidate, rows) if t.shape == tensor.shape and torch.equal(t, tensor)]
                    if same:
                        yield layer, (candidate, 0)
                        break
                if tensor.ndim == 3 and tensor.shape[-1] == c and tensor.shape[1] >= h * w:
                    prefix = tensor.shape[1] - h * w
                    if torch.equal(tensor[:, prefix:], rows.flatten(1, 2)):
                        yield layer, (candidate, prefix)
                        break


def _spread(net: nn.Module) -> None:
    """Draw what begins as a constant: layer scales, zeroed last norms, tokens; else a misreading could go unseen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() > 1 and parameter.std() < 1e-4:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def _close(x: Tensor, y: Tensor) -> bool:
    scale = float(y.abs().max()) or 1.0
    return bool(torch.allclose(x.float() / scale, y.float() / scale, rtol=1e-3, atol=1e-4))
