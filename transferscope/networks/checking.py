"""What can be known of the sources of a zoo without running them: are their files there, and do checkpoints fit."""

import warnings
from collections.abc import Iterator

from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks import timm_source
from transferscope.networks.located_yaml import Problem
from transferscope.networks.lookup import is_on_hub
from transferscope.networks.zoo import Source, TransformOptions, Zoo, missing


def check_sources(zoo: Zoo, *, trust_code: bool = False) -> tuple[list[str], list[str]]:
    """Check that files are there, that libraries build the architectures, and that checkpoints fit them.

    Architectures are built without memory for their weights where that can be; of checkpoints names and shapes are
    read. Nothing is downloaded: models of a hub are not looked at, nor the library's own weights.

    Parameters
    ----------
    zoo
        As `load_zoo` returns it.
    trust_code
        Allow to run the factories of sources with the loader ``python``, to see whether checkpoints fit these too.

    Returns
    -------
    problems
        Messages, each with its line.
    unchecked
        Names of the sources whose checkpoints may not fit, for their factories were not run.

    Warns
    -----
    TransferscopeWarning
        What loading a checkpoint will assume or leave out.
    """
    problems: list[Problem] = []
    unchecked: list[str] = []
    for index, source in enumerate(zoo.sources):
        files = list(missing(index, source))
        problems += files
        if files or _is_plain(source):
            continue
        runs_code = source.loader == "python" and not trust_code
        if runs_code and (source.checkpoint or source.initial):
            unchecked.append(source.name)
        for key, text in _unreadable(source) if runs_code else _unfit(source, trust_code):
            problems.append((("sources", index, key), text))
    return [zoo.located(where, text) for where, text in problems], unchecked


def _is_plain(source: Source) -> bool:
    """Whether an entry is a model of timm as it comes, of which its name says everything."""
    plain = source.loader == "timm" and not source.kwargs and source.transform == TransformOptions()
    files = source.checkpoint or source.initial
    return plain and not files and not source.is_random and timm_source.has_weights(str(source.model))


def _unreadable(source: Source) -> Iterator[tuple[str, str]]:
    """Find what is wrong with checkpoints by themselves."""
    from transferscope.networks.checkpoint_files import read_checkpoint
    from transferscope.networks.choosing import under_key

    for key, path in (("checkpoint", source.checkpoint), ("initial", source.initial)):
        if path is None:
            continue
        try:
            file = read_checkpoint(path, mapped=True)
            if key == "checkpoint" and source.checkpoint_key is not None:
                key = "checkpoint_key"
                under_key(file, source.checkpoint_key, path)
        except SourceError as error:
            yield key, str(error)


def _unfit(source: Source, trust_code: bool) -> Iterator[tuple[str, str]]:
    """Find what is wrong with an architecture, and with checkpoints beside it."""
    # With torch, which takes longer to import than most zoo files to check.
    from transferscope.networks.checkpoints import find_weights
    from transferscope.networks.loading import outline

    if source.model is not None and is_on_hub(source.loader, source.model):  # how it describes it would be downloaded
        yield from _unreadable(source)
        return
    try:
        module = outline(source, trust_code=trust_code)
    except SourceError as error:
        yield "model" if source.model else "factory", str(error).removeprefix(f"source {source.name!r}: ")
        return
    for key, path in (("checkpoint", source.checkpoint), ("initial", source.initial)):
        if path is None:
            continue
        try:
            _, said = find_weights(module, path, source.checkpoint_key if key == "checkpoint" else None, mapped=True)
        except SourceError as error:
            yield key, str(error)
        else:
            for text in said:
                warnings.warn(f"source {source.name!r}: {text}", TransferscopeWarning, stacklevel=2)
