"""Checkpoints that ask for more time or memory than a file of their size may: told before they are read."""

import io
import os
import pickletools
import struct
import zipfile
from pathlib import Path

from torch import Tensor, strided

from transferscope.runtime.regular import open_regular

DEEPEST = 40
"""Mappings within each other that tensors may lie in."""
TENSORS = 100_000

_HEADER = 4 * 2**20
"""Bytes in which a file says what its tensors are called, and all that is in it beside them: names of 30 000 or so."""
_STEPS, _CALLS = 2_000_000, 100_000
"""Of a pickle: opcodes, and those of them that call something, twice for each tensor."""
_CALLING = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD"}
_SLACK = 64 * 2**20
"""Bytes that a tensor may have beyond the size of its file: a number that stands for every element, say."""
_DIRECTORY = (struct.Struct("<4s4x2xHI4x2x"), struct.Struct("<4s36xQ8x"))


def too_much_safetensors(path: Path) -> str | None:
    """Return in what a file of safetensors goes beyond a bound, to be read after its name; None where it does not."""
    with open_regular(path) as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        size = os.fstat(file.fileno()).st_size
    return _beside(length) if _HEADER < length <= size else None


def too_much_pickled(path: Path) -> str | None:
    """Return in what a file of torch.save goes beyond a bound, to be read after its name; None where it does not.

    Of a file that is damaged nothing is told.
    """
    with open_regular(path) as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return _too_much_in(file.read(_HEADER + 1))
        size = os.fstat(file.fileno()).st_size
        if (length := _directory_length(file, size)) > _HEADER:
            return _beside(length)
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                unpacked = sum(entry.file_size for entry in entries)
                if unpacked > size:
                    return (
                        f"unpacks to {_megabytes(unpacked)}, though it has {_megabytes(size)} and torch.save "
                        "compresses nothing; save it again"
                    )
                for entry in entries:
                    if entry.filename.endswith("data.pkl"):
                        with archive.open(entry) as pickled:
                            return _too_much_in(pickled.read(_HEADER + 1))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
            return None
    return None


def too_large(tensor: Tensor, path: Path) -> bool:
    """Whether a tensor is larger than the file that it comes from can hold: few numbers that stand for many."""
    if tensor.layout is not strided or tensor.device.type == "meta":
        return False
    return tensor.numel() * tensor.element_size() > path.stat().st_size + _SLACK


def _directory_length(file: io.BufferedIOBase, size: int) -> int:
    """Return how many bytes the list of what is in an archive has; 0 where it is not found."""
    file.seek(max(0, size - 2**16 - 22))
    end = file.read()
    record, record_64 = _DIRECTORY
    if (place := end.rfind(b"PK\5\6")) < 0 or len(end) < place + record.size:
        return 0
    length = int(record.unpack_from(end, place)[2])
    if length < 2**32 - 1:
        return length
    place = end.rfind(b"PK\6\6")
    return int(record_64.unpack_from(end, place)[1]) if place >= 0 and len(end) >= place + record_64.size else 0


def _too_much_in(data: bytes) -> str | None:
    """Look at the first pickles of a file: those before its tensors."""
    stream = io.BytesIO(data)
    steps = calls = 0
    try:
        for _ in range(4):  # torch.save wrote three short ones first, before it wrote archives
            for opcode, argument, _place in pickletools.genops(stream):
                steps += 1
                calls += opcode.name in _CALLING
                if steps > _STEPS or calls > _CALLS:
                    return f"holds more than {_CALLS // 2} tensors or as much besides; save the weights alone"
                if opcode.name == "GLOBAL" and str(argument).endswith(" bytearray"):
                    return "holds a bytearray, which can ask for any amount of memory; save the weights alone"
    except Exception:  # damaged, or cut off here; what reads it says the first
        return _beside(len(data)) if len(data) > _HEADER and stream.tell() >= _HEADER else None
    return None


def _beside(length: int) -> str:
    return (
        f"holds {_megabytes(length)} or more of names and other things beside its tensors, over the "
        f"{_megabytes(_HEADER)} that are read; save the weights alone"
    )


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size} bytes"
