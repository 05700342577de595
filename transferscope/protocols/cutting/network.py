"""What cutting a source gives: an ordinary network with a frozen part, a trained part and a head for the target."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from transferscope.activations.outputs import tensor_for
from transferscope.activations.tracing import evaluating
from transferscope.data.images import Transform
from transferscope.errors import InputError
from transferscope.protocols.cutting.anatomy import parameters_by_stage
from transferscope.protocols.cutting.dividing import Prefix
from transferscope.runtime.flops import count_flops
from transferscope.runtime.parameter_count import all_parameters
from transferscope.runtime.store import write_atomically


class CutNetwork(nn.Module):
    """A source network made ready for a target by `cut`, an ordinary network that maps images to logits.

    Images (n, channels, height, width) are those of `transform`; logits are (n, classes). The frozen part needs no
    gradients and stays in evaluation mode whatever `train` says, so that its batch norms do not change.

    Attributes
    ----------
    prefix : Prefix or None
        The frozen part, None when everything is trained.
    rest : torch.nn.Module
        What is trained; behind a prefix it maps the prefix's output to logits, else images.
    transform : Transform
        From an image to the network's input.
    protocol : str
        What the network was made for.
    depth : int
        How many stages are kept from the source.
    layer : str
        The last one of them; empty at depth 0.
    """

    def __init__(
        self,
        prefix: Prefix | None,
        rest: nn.Module,
        *,
        transform: Transform,
        protocol: str,
        depth: int,
        stages: Sequence[str],
    ) -> None:
        super().__init__()
        self.prefix = prefix if prefix is None else prefix.requires_grad_(False)
        self.rest = rest.requires_grad_(True)
        self.transform = transform
        self.protocol = protocol
        self.depth = depth
        self.layer = stages[depth - 1] if depth else ""
        self._stages = tuple(stages)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, channels, height, width), as `transform` gives them, to logits (n, classes)."""
        output = self.rest(images if self.prefix is None else self.prefix(images))
        logits = tensor_for(output, ())  # in training some networks put out more
        assert logits is not None  # seen when the head was replaced
        return logits

    def train(self, mode: bool = True) -> "CutNetwork":
        """Put what is trained in training mode, or everything in evaluation mode."""
        super().train(mode)
        if self.prefix is not None:
            self.prefix.eval()
        return self

    def divided(self) -> tuple[Prefix | None, nn.Module]:
        """Return the frozen part and the trained one, so that activations can be kept between epochs.

        They are parts of this network, not copies. Without a frozen part the second is the whole network.
        """
        return (None, self) if self.prefix is None else (self.prefix, self.rest)

    def stage_parameters(self) -> dict[str, list[str]]:
        """Return for each stage of the source, by layer, the names of the parameters of this network that are in it.

        The new head is in none. Behind a frozen prefix there are no such lists.

        Raises
        ------
        InputError
            When part of this network is frozen.
        """
        if self.prefix is not None:
            raise InputError(f"Expected a network that is trained as a whole, but {self.protocol!r} freezes a part")
        names_by_layer = parameters_by_stage(self.rest, self._stages, self._sample())
        return {layer: [f"rest.{name}" for name in names] for layer, names in names_by_layer.items()}

    @property
    def params(self) -> float:
        """Number of parameters, frozen ones included: an integer, NaN when unknown."""
        return all_parameters(self)

    @property
    def flops(self) -> float:
        """Floating-point operations for one image (a multiply-add counts as two): an integer, NaN when unknown."""
        with evaluating(self), torch.inference_mode():
            return count_flops(self, self._sample())

    def save(self, path: str | PathLike[str]) -> None:
        """Write the `state_dict` to a safetensors file, for the network that the same `cut` makes.

        `net.load_state_dict(safetensors.torch.load_file(path))` reads it.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        # Copies, since safetensors refuses two names for one weight.
        weights = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in self.state_dict().items()}
        try:
            write_atomically(Path(path), safetensors.torch.save(weights))
        except OSError as error:
            raise InputError(
                f"The weights cannot be written to {path}: {error.strerror}; choose another path"
            ) from error

    def _sample(self) -> Tensor:
        parameter = next(self.parameters())
        return self.transform.blank(device=parameter.device, dtype=parameter.dtype)
