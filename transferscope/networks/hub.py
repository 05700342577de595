"""Models by their name on the Hugging Face hub → a folder on this machine: fetched once, and without long retries."""

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from transferscope.errors import SourceError
from transferscope.networks.checkpoint_files import file_digest

# What libraries for downloads raise beside OSError comes from these modules, whatever number ends their names: which
# one the model hub downloads by has changed from requests over httpx to httpx2.
_DOWNLOADERS = {"huggingface_hub", "httpx", "requests", "urllib", "http"}
_SECONDS = 5
"""How long the hub may take to say what a model consists of; its own functions go on trying for half a minute."""
_DECIDING = {".json", ".safetensors", ".bin", ".pt", ".pth", ".py"}
"""What files end in that decide what a model is: not its description, nor its weights for other libraries."""
_DESCRIBING = {".json", ".py"}


_unasked: ContextVar[bool] = ContextVar("unasked", default=False)


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Take no more than is on this machine: what only looks at a zoo has not been asked to download."""
    token = _unasked.set(True)
    try:
        yield
    finally:
        _unasked.reset(token)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the hub's own library from asking it, and from going on trying for most of a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetched(
    model: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    lacking: Callable[[Path], str],
    revision: str | None = None,
    *,
    instead: str = "give a folder that holds the model as `model`",
) -> Path:
    """Return the folder that holds what is needed of a model on the hub.

    What is on this machine is taken as it is: the hub is asked where something is lacking, once, and not at all where
    HF_HUB_OFFLINE is set.

    Parameters
    ----------
    model
        ``owner/name``.
    choose
        Returns which of its files to download, of their names.
    lacking
        Says what a folder lacks; nothing where it has all.
    revision
        A branch, a tag or a commit.
    instead
        What to do where it cannot be downloaded, for the message.

    Raises
    ------
    SourceError
        The hub does not have it, or cannot be asked.
    """
    cached = _cached(model, revision)
    if cached is not None and not lacking(cached):
        return cached
    if _unasked.get():
        raise SourceError(
            f"{model!r} is not on this machine, or not all of it, and nothing is downloaded to look at it; what runs "
            "it, as rank does, fetches it"
        )
    folder = _downloaded(model, choose, revision, instead)
    if lack := lacking(folder):
        raise SourceError(f"{model!r} has {lack} on the Hugging Face hub; choose another model")
    return folder


def _cached(model: str, revision: str | None) -> Path | None:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(model, revision=revision, local_files_only=True))
    except Exception:  # of a name that no model can have, the hub itself says it better
        return None


def _downloaded(
    model: str, choose: Callable[[Sequence[str]], Sequence[str]], revision: str | None, instead: str
) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    at = f" at the revision {revision!r}" if revision else ""
    if constants.HF_HUB_OFFLINE:
        raise SourceError(
            f"{model!r}{at} is not on this machine, or not all of it, and HF_HUB_OFFLINE forbids to download it; unset "
            f"that, or {instead}"
        )
    try:
        found = huggingface_hub.HfApi().model_info(model, revision=revision, timeout=_SECONDS)
        names = choose([each.rfilename for each in found.siblings or []])
        patterns = [glob.escape(name) for name in names]
        return Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{model!r} is gated on the Hugging Face hub: ask for access on its page, then run hf auth login"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise SourceError(
            f"the Hugging Face hub has no model {model!r}{at}; correct the name, or run hf auth login if it is private"
        ) from error
    except Exception as error:
        if not is_download(error):
            raise
        raise SourceError(
            f"{model!r} could not be downloaded from the Hugging Face hub ({type(error).__name__}); connect to the "
            f"internet, or {instead}"
        ) from error


def is_download(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, a download that broke off."""
    while error is not None:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0].rstrip("0123456789") in _DOWNLOADERS:
            return True
        error = error.__cause__ or error.__context__
    return False


def contents(folder: Path, *, weights: bool = True) -> dict[str, str]:
    """Digest the files that decide what a model in a folder is, by name; without `weights` those that describe it."""
    kinds = _DECIDING if weights else _DESCRIBING
    files = sorted(path for path in folder.iterdir() if path.suffix in kinds and path.is_file())
    return {path.name: file_digest(path) for path in files}
