"""Tangent features: how a network's output moves with each of its weights, image by image, sketched."""

import math
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from transferscope.errors import InputError, SourceError
from transferscope.runtime.trees import Structure, flattened, rebuilt

_GRADIENT_BYTES, _PATCH_BYTES = 2**28, 2**24
"""Of per-sample gradients, and of patches of a convolution, that are held at once."""
_TOLERANCE = 0.05
"""Relative difference below which an image is taken to give the same by itself as among others: far above rounding."""


def tangent_features(
    net: nn.Module, batches: Iterable[Tensor], *, width: int = 512, seed: int = 0, output: int = 0
) -> dict[str, Tensor]:
    """Return the gradients of one output of a network by the weights of each module, image by image.

    Their inner products are the empirical neural tangent kernel (Jacot et al. 2018, arXiv 1806.07572). A convolution or
    linear layer has the gradient Σ_t δ_t a_tᵀ over positions t; where it has more than `width` entries, δ and a are
    each multiplied by a random sign matrix, which leaves inner products as they are in expectation, and no gradient is
    ever formed. The gradients of grouped convolutions and of all other modules are formed, and folded to `width`
    entries with random signs (CountSketch, its places filled evenly).

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode; maps a batch to (n, n_outputs). Left as it is.
    batches : iterable of torch.Tensor
        (batch, ...) each, on the network's device. They are taken image by image, which is slow, where some module does
        not get them one after the other along its first dimension, or where the first batch holds one image alone.
    width : int
        Most entries for the weight, and for the bias, of a layer, and for any other module.
    seed : int
        Of the random signs: two sets of images need the same for inner products between them.
    output : int
        Which of the outputs.

    Returns
    -------
    dict of str to torch.Tensor
        By module, in the order of the network, (n_samples, entries) in its dtype and on its device: of those with
        weights that require a gradient and that the output depends on. A module whose children's weights are used
        without calling the children is one with them. Weights that another module with weighted children holds itself
        (class tokens, position embeddings) are left out, and a weight that two modules share counts as two.

    Raises
    ------
    InputError
        When the network is in training mode, or there are no images.
    SourceError
        When the network's output does not depend on weights that require gradients.
    """
    training = [name for name, module in net.named_modules() if module.training]
    if training:
        raise InputError(
            "Expected `net` to be in evaluation mode, so that an image's gradient is its own, but it is in training "
            f"mode ({len(training)} modules, the first is {training[0] or type(net).__name__!r}); call net.eval()"
        )
    plan: _Plan | None = None
    rows: list[dict[str, Tensor]] = []
    for batch in batches:
        plan = plan or _Plan(net, batch[:2], width, seed)
        rows += [plan.features(net, images, output) for images in (batch.split(1) if plan.one_by_one else [batch])]
    if plan is None:
        raise InputError("Expected `batches` to hold at least one batch of images, but there is none")
    return {name: torch.cat([blocks[name] for blocks in rows]) for name in plan.units}


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module."""

    inputs: list[Any]
    """Leaves of the tree of positional and named arguments."""
    structure: Structure
    outputs: list[Any]
    """Leaves of what it returned."""


@contextmanager
def _recorded(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[_Call]]]:
    """Record the calls of these modules, in the order of their first calls."""
    calls: dict[str, list[_Call]] = {}

    def recorder(name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], after: Any) -> Any:
            outputs, structure = flattened(after)
            calls.setdefault(name, []).append(_Call(*flattened((arguments, options)), outputs))
            # What follows may change its input in place, and must not change what is differentiated by.
            return rebuilt([each.clone() if isinstance(each, Tensor) else each for each in outputs], structure)

        return hook

    handles = [module.register_forward_hook(recorder(name), with_kwargs=True) for name, module in modules.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _run(net: nn.Module, modules: Mapping[str, nn.Module], images: Tensor) -> tuple[dict[str, list[_Call]], Tensor]:
    """Run the network and return the calls of these modules and the network's output."""
    with _recorded(modules) as calls, torch.enable_grad():
        logits = net(images.clone())  # which the network may change in place
    if logits.grad_fn is None:
        raise SourceError(
            f"Expected the output of {type(net).__name__} to depend on weights that require gradients, but it does not"
        )
    return calls, logits


def _parameters_behind(node: Any) -> set[int]:
    """Return the ids of the parameters that an autograd node depends on."""
    stack, seen, parameter_ids = [node], {None}, set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            parameter_ids.add(id(variable))
        stack += [following for following, _ in node.next_functions]
    return parameter_ids


class _Plan:
    """Which modules of a network are differentiated, and how, as two images show."""

    def __init__(self, net: nn.Module, images: Tensor, width: int, seed: int) -> None:
        alone, logits = _run(net, dict(net.named_modules()), images[:1])
        self.units = _units(net, alone.keys(), _parameters_behind(logits.grad_fn))
        self.sketches = {
            name: _Sketch(unit, width, seed + 1_000_003 * place)
            for place, (name, unit) in enumerate(self.units.items())
        }
        both, _ = _run(net, self.units, images)
        holding = {name: _holding(both.get(name, []), alone[name], len(images)) for name in self.units}
        self.one_by_one = len(images) == 1 or None in holding.values()
        if self.one_by_one:
            holding = {name: _holding(alone[name], alone[name], 1) for name in self.units}
        self.holding = {name: found for name, found in holding.items() if found is not None}

    @torch.no_grad()
    def features(self, net: nn.Module, images: Tensor, output: int) -> dict[str, Tensor]:
        """Return the features of these images by module, (n_samples, entries) each."""
        calls, logits = _run(net, self.units, images)
        towards = torch.zeros_like(logits)
        towards[:, output] = 1
        gradients = _by_outputs(logits, towards, calls)
        found = {}
        for name, sketch in self.sketches.items():
            each = zip(calls[name], gradients[name], self.holding[name], strict=True)
            found[name] = torch.stack([sketch(*of_call, len(images)) for of_call in each]).sum(0)
        return found


def _units(net: nn.Module, called: Collection[str], behind: set[int]) -> dict[str, nn.Module]:
    """Return the modules that are differentiated one by one, by path.

    Those with weights of their own and no weighted children; where a module's weights are used without calling it, or
    are computed from others (parametrisations), the module around it that is called, as a whole.
    """
    around = {
        path: _called_around(path, called)
        for path, module in net.named_modules()
        if any(weight.requires_grad and id(weight) in behind for weight in module.parameters(recurse=False))
    }
    whole = {outer for path, outer in around.items() if outer != path}
    leaves = {path for path, outer in around.items() if outer == path and not any(_inside(p, path) for p in around)}
    chosen = {path for path in whole | leaves if not any(_inside(path, outer) for outer in whole)}
    return {path: module for path, module in net.named_modules() if path in chosen}


def _called_around(path: str, called: Collection[str]) -> str:
    while path and (path not in called or "parametrizations" in path.split(".")):
        path = path.rpartition(".")[0]
    return path


def _inside(path: str, outer: str) -> bool:
    return path != outer and (not outer or path.startswith(f"{outer}."))


def _holding(calls: list[_Call], alone: list[_Call], n: int) -> list[list[bool]] | None:
    """Say which inputs of each call hold equally much of each of `n` images, one image after the other.

    None when some input or output holds the images in another way, seen by what the first one gives `alone`.
    """

    def holds(among: Any, by_itself: Any) -> bool | None:
        if not isinstance(among, Tensor) or not isinstance(by_itself, Tensor):
            return False
        if among.ndim and among.shape == (n * len(by_itself), *by_itself.shape[1:]):
            first, expected = among[: len(by_itself)].float(), by_itself.float()
            return True if n == 1 or (first - expected).norm() <= _TOLERANCE * expected.norm() else None
        return False if among.shape == by_itself.shape else None

    if len(calls) != len(alone):
        return None
    found = []
    for call, other in zip(calls, alone, strict=True):
        if len(call.inputs) != len(other.inputs) or len(call.outputs) != len(other.outputs):
            return None
        inputs = [holds(*pair) for pair in zip(call.inputs, other.inputs, strict=True)]
        outputs = [holds(*pair) for pair in zip(call.outputs, other.outputs, strict=True) if _moves(pair[0])]
        if None in inputs or not all(outputs):
            return None
        found.append([bool(each) for each in inputs])
    return found


def _moves(output: Any) -> bool:
    return isinstance(output, Tensor) and output.requires_grad


def _by_outputs(logits: Tensor, towards: Tensor, calls: Mapping[str, list[_Call]]) -> dict[str, list[list[Tensor]]]:
    """Return the gradients of Σ `logits` `towards` by the outputs of each call that require one."""
    moving = {name: [list(filter(_moves, call.outputs)) for call in of_module] for name, of_module in calls.items()}
    leaves, structure = flattened(moving)
    return rebuilt(list(torch.autograd.grad(logits, leaves, towards, materialize_grads=True)), structure)


def _has_hooks(module: nn.Module) -> bool:
    """Whether anything was hooked to the forward pass, which torch has no public way to ask."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class _Sketch:
    """Makes the sketched gradients of one module from what went in and the gradients by what came out."""

    def __init__(self, module: nn.Module, width: int, seed: int) -> None:
        self._module, self._width = module, width
        self._draw = torch.Generator().manual_seed(seed)
        self._kept: dict[str, Tensor] = {}
        self._weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        # Subclasses may do anything with their weights; hooks and parametrisations make them from others.
        names = [name for name, _ in module.named_parameters()]
        self._is_layer = (
            type(module) in (nn.Conv2d, nn.Linear)
            and names in (["weight"], ["weight", "bias"])
            and not _has_hooks(module)
        )

    def __call__(self, call: _Call, gradients: list[Tensor], holds: list[bool], n: int) -> Tensor:
        """Return (n, entries)."""
        if not self._is_layer:
            return self._folded(self._whole(call, gradients, holds, n))
        images, gradient = call.inputs[0], gradients[0]
        positions = (2, 3) if isinstance(self._module, nn.Conv2d) else tuple(range(1, gradient.ndim - 1))
        found = []
        if "weight" in self._weights:
            of_weight = self._of_convolution if isinstance(self._module, nn.Conv2d) else self._of_linear
            found.append(of_weight(images, gradient, n))
        if "bias" in self._weights:
            by_bias = gradient.sum(positions) if positions else gradient  # a sum over none would be over all
            found.append(self._folded(by_bias.unflatten(0, (n, -1)).sum(1)))
        return torch.cat(found, dim=1)

    def _of_linear(self, inputs: Tensor, gradient: Tensor, n: int) -> Tensor:
        left, right = (each.reshape(n, -1, each.shape[-1]).mT for each in (gradient, inputs))
        weight = self._weights["weight"]
        if weight.numel() > self._width:
            rows, columns = self._sides(weight)
            left, right = (
                self._signs("rows", rows, len(weight)) @ left,
                self._signs("columns", columns, len(weight[0])) @ right,
            )
        return (left @ right.mT).flatten(1)

    def _of_convolution(self, images: Tensor, gradient: Tensor, n: int) -> Tensor:
        """Multiply the patches that a convolution sees by the gradients of its outputs, summed over positions.

        Patches, multiplied by random signs where they are sketched, are what the module itself makes of images with
        other weights, so that padding, stride and dilation are its own.
        """
        module, weight = self._module, self._weights["weight"]
        assert isinstance(module, nn.Conv2d)
        groups, entries = module.groups, weight[0].numel()
        sketched = groups == 1 and weight.numel() > self._width
        if sketched:
            rows, columns = self._sides(weight)
            signs, kernels = self._signs("rows", rows, len(weight)), self._signs("columns", columns, entries)
        else:
            kernels = torch.eye(entries, device=weight.device, dtype=weight.dtype).repeat(groups, 1)
        given = {"weight": kernels.view(-1, *weight.shape[1:])}
        if module.bias is not None:
            given["bias"] = torch.zeros(len(kernels), device=weight.device, dtype=weight.dtype)
        parts, positions = len(gradient) // n, gradient[0, 0].numel()

        def by_image(maps: Tensor) -> Tensor:
            maps = maps.reshape(-1, parts, groups, maps.shape[1] // groups, positions)
            return maps.permute(0, 2, 3, 1, 4).flatten(3)

        found = []
        step = parts * max(1, _PATCH_BYTES // (len(kernels) * parts * positions * weight.element_size()))
        for some, gradients in zip(images.split(step), gradient.split(step), strict=True):
            left, right = by_image(gradients), by_image(functional_call(module, given, (some,)))
            found.append((signs @ left if sketched else left) @ right.mT)
        product = torch.cat(found).flatten(1)
        return product if sketched else self._folded(product)

    def _sides(self, weight: Tensor) -> tuple[int, int]:
        """Return how many rows and columns of a gradient are kept, about equally many where there are enough."""
        rows, columns = len(weight), weight[0].numel()
        kept = min(rows, max(math.isqrt(self._width), self._width // columns))
        return kept, min(columns, self._width // kept)

    def _whole(self, call: _Call, gradients: list[Tensor], holds: list[bool], n: int) -> Tensor:
        """Return the gradients by all weights of the module, (n, n_weights)."""
        fixed = [each.detach() if isinstance(each, Tensor) else each for each in call.inputs]
        moving = [place for place, each in enumerate(call.outputs) if _moves(each)]

        def of_one(inputs: list[Tensor], by_outputs: list[Tensor]) -> Tensor:
            own = iter(inputs)
            leaves = [next(own) if held else each for held, each in zip(holds, fixed, strict=True)]
            arguments, options = rebuilt(leaves, call.structure)

            def forward(weights: dict[str, Tensor]) -> list[Tensor]:
                outputs = flattened(functional_call(self._module, weights, arguments, options))[0]
                return [outputs[place] for place in moving]

            pull = vjp(forward, self._weights)[1]
            return torch.cat([part.flatten() for part in pull(by_outputs)[0].values()])

        size = sum(weight.numel() * weight.element_size() for weight in self._weights.values())
        inputs = [each.unflatten(0, (n, -1)) for held, each in zip(holds, fixed, strict=True) if held]
        # The other backends cannot be vectorised over images; where another operation cannot, torch loops and says so.
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            per_image = vmap(of_one, chunk_size=max(1, _GRADIENT_BYTES // size))
            return per_image(inputs, [each.unflatten(0, (n, -1)) for each in gradients])

    def _folded(self, gradients: Tensor) -> Tensor:
        """Add the entries up in `width` places, each with a random sign, if there are more."""
        size = gradients.shape[1]
        if size <= self._width:
            return gradients
        if (name := f"order of {size}") not in self._kept:
            self._kept[name] = torch.randperm(size, generator=self._draw).to(gradients.device)
        signed = gradients[:, self._kept[name]] * self._signs(f"signs of {size}", 1, size)
        # Not index_add_, which on a GPU adds in any order.
        return nn.functional.pad(signed, (0, -size % self._width)).unflatten(1, (-1, self._width)).sum(1)

    def _signs(self, name: str, rows: int, columns: int) -> Tensor:
        """Return random signs, scaled so that they keep inner products in expectation; the identity if square."""
        if name not in self._kept:
            like = next(iter(self._weights.values()))
            if rows == columns:
                signs = torch.eye(rows)
            else:
                signs = (2.0 * torch.randint(2, (rows, columns), generator=self._draw) - 1) / math.sqrt(rows)
            self._kept[name] = signs.to(like.device, like.dtype)
        return self._kept[name]
