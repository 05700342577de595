"""What a file is that was taken for a checkpoint and is none: told by its first bytes, with what to do."""

import tarfile
import zipfile
from pathlib import Path

from transferscope.runtime.regular import open_regular

_SAFETENSORS_HEADER = 8
"""Bytes before the header of safetensors, which begins with a brace."""


def what_else(path: Path) -> str | None:
    """Return what a file is and what to do, to be read after its name; None where its bytes do not tell."""
    try:
        with open_regular(path) as file:
            first = file.read(64)
        if not first:
            return "is damaged or no checkpoint (it is empty); fetch or save it again"
        if first.startswith(b"version https://git-lfs"):
            return "is the pointer that Git LFS keeps in the place of a file; fetch the file with git lfs pull"
        if first.lstrip()[:1] == b"<":
            return "is damaged or no checkpoint (it is a web page); fetch the file itself"
        if first.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or tarfile.is_tarfile(path):
            return "is an archive; unpack it and name the file of weights in it"
        if first.startswith(b"PK") and zipfile.is_zipfile(path):
            return _of_zip(path)
    except (OSError, tarfile.TarError, zipfile.BadZipFile):
        return None
    is_safetensors = path.name.lower().endswith(".safetensors")
    if not is_safetensors and first[_SAFETENSORS_HEADER : _SAFETENSORS_HEADER + 2] == b'{"':
        return "is a file of safetensors; let its name end in .safetensors"
    if is_safetensors and first.startswith(b"\x80"):
        return "is a pickle; if torch.save made it, let its name end in .pt"
    return None


def _of_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith("data.pkl") for name in names):
        return f"is an archive with {', '.join(names[:3])}; unpack it and name the file of weights in it"
    if path.name.lower().endswith(".safetensors"):
        return "is a file of torch.save; let its name end in .pt"
    return None
