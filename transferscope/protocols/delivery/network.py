"""The network that a transfer delivers: a source cut, adapted and put together again, from images to class logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.activations.calls import Call
from transferscope.activations.outputs import tensor_at, tensor_for
from transferscope.activations.reductions import mean_over_positions
from transferscope.activations.tracing import trace
from transferscope.errors import SourceError
from transferscope.networks.loading import Network
from transferscope.protocols.cutting.anatomy import copied
from transferscope.protocols.cutting.cut import CutNetwork
from transferscope.protocols.cutting.dividing import Prefix, Suffix, stopped, trial_images
from transferscope.protocols.cutting.heads import renew_head
from transferscope.protocols.heads.modules import HeadScores
from transferscope.protocols.training.objective import Scale
from transferscope.runtime.metrics import CLASSIFICATION, MULTI_LABEL, REGRESSION
from transferscope.runtime.seeding import seeded

_TOLERANCE = 1e-4
"""Of the largest logit: how far a network that was put together again may be from its two parts."""


@dataclass(frozen=True)
class Form:
    """What is kept of a source, and what comes after it.

    Attributes
    ----------
    layers : tuple of str
        The frozen layers whose means over positions a head gets, in firing order; nothing after the last is kept.
        Empty where the whole network is, with a new classifier.
    head : mapping of str to tuple of int
        Shapes of the arrays of that head, as `HeadScores` takes them.
    """

    layers: tuple[str, ...] = ()
    head: Mapping[str, tuple[int, ...]] | None = None


class StageMeans(nn.Module):
    """The means over positions of what some layers put out, side by side; the network stops after the last of them.

    Parameters
    ----------
    prefix : Prefix
        The network up to the last layer.
    inner : sequence of (str, int, Call)
        The others, in firing order: path of the module, which call of it, and what is known of that.
    """

    def __init__(self, prefix: Prefix, inner: Sequence[tuple[str, int, Call]]) -> None:
        super().__init__()
        self.prefix = prefix
        self._means = [_Mean(number, call) for _, number, call in inner]
        for (path, _, _), mean in zip(inner, self._means, strict=True):
            prefix.net.get_submodule(path).register_forward_hook(mean, prepend=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to features (n, n_features)."""
        for mean in self._means:
            mean.calls = 0
        last = mean_over_positions(self.prefix(images), self.prefix.layout)
        return torch.cat([*(mean.taken() for mean in self._means), last], dim=1)


class _Mean:
    """A forward hook that takes the mean over positions of one call of its module."""

    def __init__(self, number: int, call: Call) -> None:
        self.calls = 0
        self._number = number
        self._way, self._layout = call.way, call.layout
        self._features: Tensor | None = None

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.calls += 1
        if self.calls == self._number:
            tensor = tensor_at(output, self._way)
            assert tensor is not None  # the trace has seen one
            self._features = mean_over_positions(tensor, self._layout)

    def taken(self) -> Tensor:
        """Return the features of the last forward pass and let go of them."""
        features, self._features = self._features, None
        assert features is not None  # a layer before the last has fired
        return features


class DeliveredNetwork(nn.Module):
    """A network for the classes of a target, frozen and in evaluation mode. Made by `delivered`.

    Images (n, channels, height, width) are those of the source's transform. Probabilities are the softmax of the
    logits, of several labels the sigmoid of each; logits are divided by a temperature (Guo et al. 2017, arXiv
    1706.04599), 1 unless one was fitted. Numbers are what it puts out, times `deviation`, plus `mean`.

    Attributes
    ----------
    body : torch.nn.Module
        The whole network with its new classifier; or `StageMeans`, from images to features.
    head : HeadScores or None
        From features to a score for each class, or other output.
    task : str
        What it was trained for.
    """

    temperature: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, body: nn.Module, head: HeadScores | None, task: str, outputs: int) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.task = task
        self.register_buffer("temperature", torch.ones(()))
        if task == REGRESSION:
            self.register_buffer("mean", torch.zeros(outputs))
            self.register_buffer("deviation", torch.ones(outputs))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits (n, n_classes), or to numbers in their own units (n, n_numbers), float32."""
        output = tensor_for(self.body(images), ())
        assert output is not None  # seen when the head was replaced
        scores = output if self.head is None else self.head(output)
        if self.task == REGRESSION:
            return scores.float() * self.deviation + self.mean
        return scores.float() / self.temperature

    def answers(self, outputs: Tensor) -> Tensor:
        """Return probabilities of what `forward` returns; of numbers these themselves."""
        if self.task == REGRESSION:
            return outputs
        return outputs.sigmoid() if self.task == MULTI_LABEL else outputs.softmax(dim=1)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class or label, or numbers, (n, n_outputs) float32, on its own device."""
        return self.answers(self(images.to(self.temperature.device)))

    def in_units_of(self, scale: Scale) -> None:
        """Have a network that has learnt standardised numbers put them out as they were."""
        self.mean.copy_(torch.from_numpy(scale.mean))
        self.deviation.copy_(torch.from_numpy(scale.deviation))

    def take(self, trained: CutNetwork) -> None:
        """Take over the weights of a network on the CPU that `cut` made of the same source, and that was trained since.

        Raises
        ------
        SourceError
            It was trained in two parts, and no single network does what the two do.
        """
        prefix, rest = trained.divided()
        if prefix is None:
            self.body.load_state_dict(trained.rest.state_dict())
            return
        assert isinstance(rest, Suffix)
        # A module in the midst of which the network is cut is in both parts. What it has learnt in the second of images
        # that were not there (averages of batch norm) means nothing.
        self.body.load_state_dict({**rest.net.state_dict(), **prefix.net.state_dict()}, strict=False)
        images = trial_images(trained.transform.blank())
        with torch.inference_mode():
            expected, found = trained(images), self(images)
        if not torch.allclose(found, expected, rtol=0, atol=_TOLERANCE * float(expected.abs().max())):
            raise SourceError(
                f"{type(rest.net).__name__} uses some weights both before and after {trained.layer!r}, so that no "
                f"single network does what its two parts do after {trained.protocol}; use finetune or truncate, or cut "
                "elsewhere"
            )

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Its `state_dict` on the CPU, each tensor with memory of its own, as safetensors wants them.

        Raises
        ------
        SourceError
            It holds something else than tensors, as quantised layers do.
        """
        state = self.state_dict()
        if others := [key for key, value in state.items() if not isinstance(value, Tensor)]:
            raise SourceError(
                f"The weights cannot be saved: {others[0]!r} is no tensor, as in quantised layers; use the network "
                "that was quantised as the source"
            )
        return {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}


def delivered(network: Network, form: Form, classes: int, task: str = CLASSIFICATION) -> DeliveredNetwork:
    """Return a network of this form, on the CPU, with the weights of `network` and a head that is not fitted yet.

    Parameters
    ----------
    network : Network
        The source, or its architecture to load weights into; left as it is.
    form : Form
        What is kept.
    classes : int
        Of the target; labels or numbers of another task.
    task : str
        Of the target.

    Raises
    ------
    CaptureError, SourceError
        The network has no such layers, or can be given no classifier.
    """
    sample = network.transform.blank()
    if not form.layers:
        body = copied(network.module).cpu().eval()
        renew_head(body, classes, sample, seed=0)
        return DeliveredNetwork(body, None, task, classes)
    net = network.module.cpu()
    traced = trace(net, sample)
    inner = []
    for layer in form.layers[:-1]:
        call = traced.find(layer)
        if call is None:
            raise SourceError(f"{type(net).__name__} runs through no layer {layer!r}, whose features are needed")
        path = next(path for path, module in net.named_modules() if module is call.module)
        inner.append((path, int(layer[len(path) + 1 :] or 1), call))
    means = StageMeans(stopped(net, form.layers[-1], sample).eval(), inner)
    return DeliveredNetwork(means, HeadScores.like(form.head or {}), task, classes)


def moved(network: CutNetwork) -> CutNetwork:
    """Return a cut network, changed as training changes it, to see beforehand what `take` makes of it.

    Its trained weights become others, and so do the averages that it keeps in training mode.
    """
    images = trial_images(network.transform.blank())
    with torch.no_grad(), seeded(0):
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
        network.train()(images)
    return network.eval()
