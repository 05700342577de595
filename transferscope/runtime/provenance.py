"""Where a result comes from: what was asked, of which data, by which versions of what."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

_PACKAGES = (
    "transferscope", "torch", "torchvision", "timm", "transformers", "open_clip_torch", "numpy", "scipy", "xarray",
    "cupy",
)  # fmt: skip
_DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}
"""Where a package is installed under other names than its own."""


@dataclass(frozen=True)
class Provenance:
    """How a result was made. Equal runs on one machine have equal ones, their commands apart."""

    settings: Mapping[str, Any]
    """Arguments by name, the seed among them."""
    sources: Mapping[str, str]
    """Source to the hash of its entry in the zoo, its checkpoint and its code."""
    versions: Mapping[str, str]
    """Package to version."""
    command: str = field(default="", compare=False)
    """The command line; empty from Python. Not in files of results, so that equal runs give equal ones anywhere."""

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into files of results: all but the command."""
        return {"settings": dict(self.settings), "sources": dict(self.sources), "versions": dict(self.versions)}


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, as far as they are installed: those that results depend on."""
    installed = {"python": platform.python_version()}
    for package in packages:
        for name in _DISTRIBUTIONS.get(package, (package,)):
            try:
                installed[package] = metadata.version(name)
                break
            except metadata.PackageNotFoundError:
                continue
    return installed
