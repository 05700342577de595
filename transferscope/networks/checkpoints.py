"""Weights in files, fitted into a network: the file's names are read as the network's, whatever stands around them."""

import warnings
from pathlib import Path

from torch import Tensor, nn

from transferscope.errors import TransferscopeWarning
from transferscope.networks.adapters import has_adapters, merged
from transferscope.networks.checkpoint_files import read_checkpoint
from transferscope.networks.choosing import choose, under_key
from transferscope.networks.conversions import converted
from transferscope.networks.expected import Expected
from transferscope.networks.matching import Match, fitting
from transferscope.networks.misfits import misfit


def load_checkpoint(module: nn.Module, path: Path, key: str | None = None) -> list[str]:
    """Load a checkpoint into a network, under the naming by which all of its tensors but the classifier's fit.

    The names in the file may lie in nested mappings and carry any prefix (``state_dict``, ``module.``, ``backbone.``,
    ``teacher.``); those of the network may carry one that the file lacks. Floating-point weights are converted to the
    network's precision. Batch counters of batch norms may be missing, and the classifier if it is missing as a whole.
    What timm converts for its own architectures, embeddings of positions for images of another size above all, is
    converted here; LoRA adapters are merged into the weights that they adapt.

    Parameters
    ----------
    module
        The network. Left as it is when the file does not fit.
    path
        The file, see `read_checkpoint`.
    key
        Where in the file the network lies, if it holds several: keys of mappings and parts of names, with dots.

    Returns
    -------
    list of str
        The names of the classifier's tensors if the file does not have them; they stay as they are in `module`.

    Warns
    -----
    TransferscopeWarning
        When a choice was made between networks, weights are left out, resampled or merged, or no classifier is there.

    Raises
    ------
    SourceError
        The file cannot be read, no naming fits, or several do with different weights.
    """
    match, said = find_weights(module, path, key)
    for text in said:
        warnings.warn(text, TransferscopeWarning, stacklevel=2)
    # All is checked; strict would ask for what may be missing.
    module.load_state_dict(match.taken, strict=False)
    return match.drawn


def find_weights(
    module: nn.Module, path: Path, key: str | None = None, *, mapped: bool = False
) -> tuple[Match, list[str]]:
    """Return what `load_checkpoint` would load and say; of a `mapped` file no more is read than names and shapes.

    Raises
    ------
    SourceError
        As `load_checkpoint`.
    """
    file = read_checkpoint(path, mapped=mapped)
    if key is not None:
        file = under_key(file, key, path)
    fits, said = _fits(module, file, path)
    match, more = choose(fits, path)
    return match, said + more


# What compiled, checkpointed, sharded and distributed parts of a network are called within it.
_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}


def _without_wrappers(file: dict[str, Tensor]) -> dict[str, Tensor]:
    # DistributedDataParallel calls what it holds `module`, which at the beginning of names is a prefix of all or none.
    plain = {
        ".".join(
            part
            for place, part in enumerate(name.split("."))
            if part not in _WRAPPERS and not (part == "module" and place)
        ): name
        for name in file
    }
    return {name: file[wrapped] for name, wrapped in plain.items()} if len(plain) == len(file) else file


def _fits(module: nn.Module, file: dict[str, Tensor], path: Path) -> tuple[list[Match], list[str]]:
    expected = Expected.of(module)
    for names in (file, _without_wrappers(file)):
        if fits := fitting(expected, names):
            return fits, []
    said: list[str] = []
    if has_adapters(file):
        file, said = merged(file, path)
        if fits := fitting(expected, file):
            return fits, said
    fits, more = converted(module, expected, file, path)
    if not fits:
        raise misfit(expected, file, path, type(module).__module__.partition(".")[0])
    return fits, said + more
