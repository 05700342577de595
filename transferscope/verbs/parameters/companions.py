"""What is measured beside the transferability of a layer: how sure its gradient is, and how far its features move."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from transferscope.activations.tracing import evaluating, trace
from transferscope.errors import InputError, SourceError, check_whole
from transferscope.protocols.training.loop import deterministic_kernels
from transferscope.protocols.training.single import trainable
from transferscope.verbs.compare.networks import compare

CHUNK = 64
"""Images in one forward and backward pass; the gradient of a larger batch is summed up over several."""


def gradient_signal_to_noise(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    groups: Mapping[str, Sequence[str]],
    *,
    batches: int = 8,
) -> dict[str, float]:
    """Return the squared length of each layer's mean gradient over the variance of the gradient of a single image.

    The images are split, in their order, into B batches of equal size, a multiple of the number of classes; what
    remains is left out. From the gradients g_b of their mean cross-entropy at the present weights, with mean ḡ and
    variance s² = Σ_b ‖g_b - ḡ‖² / (B - 1), come the signal ‖ḡ‖² - s²/B and the noise s² × the size of a batch, each
    an unbiased estimate. Where the ratio is r, the gradient of 1/r images is as long as its own error. Unchanged when
    the loss is scaled.

    Images that come class by class in turns, as `splits.draw` gives them, fill every batch with the same
    share of each class: the noise is then that within classes. With a single image of each class that cannot be, the
    difference between classes counts as noise, and the signal is estimated too low.

    Parameters
    ----------
    net : torch.nn.Module
        With a head for these labels. Run in evaluation mode, so that batch norm keeps its averages; its mode is as
        before afterwards.
    images : torch.Tensor
        (n_samples, ...), normalised; at least 4.
    labels : torch.Tensor
        (n_samples,) int64.
    groups : mapping of str to sequence of str
        Names of the parameters of each layer.
    batches : int
        The least B, at least 2. Fewer, but 2 in any case, where there are fewer images of each class.

    Returns
    -------
    dict of str to float
        Signal over noise by layer, in the order of `groups`. Slightly negative where there is no more than noise,
        infinite where all batches have the same gradient, NaN where all gradients are zero.

    Raises
    ------
    InputError
        When there are too few images or labels for them, `batches` is below 2, or a layer has no parameters, unknown
        ones or frozen ones.
    SourceError
        When a gradient is NaN or infinite.

    References
    ----------
    Liu et al. (2020, arXiv 2001.07384), Understanding why neural networks generalize well through GSNR of parameters:
    the same ratio for each parameter by itself. Here both are summed over the parameters of a layer before the ratio
    is taken, and the squared mean is corrected for the variance of the estimated mean.
    """
    if len(images) < 4 or len(images) != len(labels):
        raise InputError(
            f"Expected at least 4 `images` and a label for each, to compare batches of them, but got {len(images)} "
            f"images and {len(labels)} labels"
        )
    batches = check_whole("batches", batches, 2)
    parameters = trainable(net, groups, "layer")
    # Batches with more of some classes than of others would differ by more than chance.
    classes = len(labels.unique())
    rounds = len(images) // classes
    size = classes * max(1, rounds // batches) if rounds > 1 else len(images) // 2
    n_batches = len(images) // size
    means = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    squares = {name: torch.zeros((), dtype=torch.float64, device=mean.device) for name, mean in means.items()}
    with evaluating(net), deterministic_kernels():
        gradients = _batch_gradients(net, images, labels, parameters, n_batches, size)
        for count, gradient in enumerate(gradients, start=1):
            # Welford's updates: the mean and the squared deviations from it, in one pass and without cancellation.
            for name, mean in means.items():
                deviation = gradient[name] - mean
                mean += deviation / count
                squares[name] += torch.sum(deviation * (gradient[name] - mean))
    ratios = {}
    for layer, names in groups.items():
        variance = sum(float(squares[name]) for name in names) / (n_batches - 1)
        length = sum(float(torch.sum(means[name] ** 2)) for name in names)
        if not math.isfinite(variance + length):
            raise SourceError(
                f"Expected finite gradients of {type(net).__name__}, but those of layer {layer!r} are not; check its "
                "weights and the normalisation of the images"
            )
        signal, noise = length - variance / n_batches, variance * size
        ratios[layer] = signal / noise if noise > 0 else math.inf if length > 0 else math.nan
    return ratios


def _batch_gradients(
    net: nn.Module, images: Tensor, labels: Tensor, parameters: Mapping[str, nn.Parameter], n_batches: int, size: int
) -> Iterator[dict[str, Tensor]]:
    """Yield the float64 gradient of the mean cross-entropy of one batch after the other."""
    device = next(net.parameters()).device
    for batch, truth in zip(images.split(size)[:n_batches], labels.split(size)[:n_batches], strict=True):
        total = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
        for part, classes in zip(batch.split(CHUNK), truth.split(CHUNK), strict=True):
            loss = nn.functional.cross_entropy(net(part.to(device)), classes.to(device), reduction="sum") / size
            gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                total[name] += gradient
        yield total


def representation_similarity(
    before: nn.Module,
    after: nn.Module,
    layers: Sequence[str],
    images: Tensor,
    *,
    batch_size: int,
    device: str,
) -> dict[str, float]:
    """Return the debiased linear CKA of each layer's activations before and after training, on the same images.

    Accumulated over batches as `ts.compare` does by default: feature maps position by position.

    Parameters
    ----------
    before, after : torch.nn.Module
        Two networks of one architecture (their heads may differ). Both are moved to `device`, run in evaluation mode,
        and left in the mode they were in.
    layers : sequence of str
        Paths of modules. A name that is no module, or one that does not fire, is no error: groups of one's own
        have no activations.
    images : torch.Tensor
        (n_samples, channels, height, width), normalised; at least 4.
    batch_size : int
        Images in one forward pass, at least 4.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    dict of str to float
        By layer, in the order of `layers`: at most 1, possibly negative; the mean over the calls of a module that is
        called several times. NaN for what has no activations, or constant ones (with a warning).

    Raises
    ------
    InputError
        When there are too few images or they are too few in a batch.
    CaptureError
        When activations are NaN or infinite.
    """
    fired = [call.layer for call in trace(before, images[:1].to(next(before.parameters()).device))]
    # The second call of a module is `path:2`.
    calls = {layer: [name for name in fired if name == layer or name.startswith(f"{layer}:")] for layer in layers}
    names = [name for paths in calls.values() for name in paths]
    if not names:
        return dict.fromkeys(layers, math.nan)
    table = compare(before, after, images, layers_x=names, layers_y=names, batch_size=batch_size, device=device)
    similarity = {name: float(table.sel(layer_x=name, layer_y=name)) for name in names}
    return {
        layer: sum(map(similarity.__getitem__, paths)) / len(paths) if paths else math.nan
        for layer, paths in calls.items()
    }
