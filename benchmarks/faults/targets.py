"""Tables and shards as targets that are damaged, hostile or odd, made by a seed; see `inputs`."""

import io
import os
import tarfile
import warnings
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

from faults.words import ODD_TEXT, ODD_VALUES, Try, mutated, png

CELLS = [
    "",
    "nan",
    "-1",
    "1e999",
    "0",
    "01",
    "\ufeff",
    '"',
    '""',
    "'",
    ";",
    "\t",
    "\r",
    "a\nb",
    "train",
    "test",
    "[1, 2]",
]
TASKS = [*[None] * 12, "classification", "multi-label", "regression"]


def _load(rng: Random, path: Path, **named: Any) -> Try:
    from transferscope.data.target import load_target

    task = rng.choice(TASKS)

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_target(path, task=task, **named).probe(8)

    return attempt


def _place(rng: Random, folder: Path) -> list[str]:
    """Write images, and what is none; return paths of them, and paths of nothing."""
    for number in range(8):
        (folder / f"{number}.png").write_bytes(png())
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "damaged.png").write_bytes(mutated(rng, png()))
    odd = ["pipe.png", "folder.png", "damaged.png", "none.png", "/dev/zero", "../0.png", "file:///etc/passwd"]
    return [*(f"{number}.png" for number in range(8)), *rng.sample(odd, rng.choice((0, 0, 0, 1, 3)))]


def table(rng: Random, folder: Path) -> Try:
    """Tables as targets: damaged CSV and Parquet, odd cells, headers, quotes, encodings and columns, missing images."""
    paths = _place(rng, folder)
    rows = [[path, rng.choice("ab"), str(rng.randrange(3)), rng.choice(("train", "test"))] for path in paths]
    names = ["path", "label", "number", "split"]
    for _ in range(rng.choice((0, 0, 0, 1, 4))):
        rng.choice(rows)[rng.randrange(4)] = rng.choice((*CELLS, *ODD_TEXT))
    if rng.random() < 0.2:
        names[rng.randrange(4)] = rng.choice(("path", "image", "label", *CELLS, *ODD_TEXT))
    labels = rng.choice(("label", "label", "label", "number", None, ["label", "number"], rng.choice(ODD_TEXT)))
    path = folder / f"t{rng.choice(('.csv', '.csv', '.tsv', '.parquet', '.parquet', '.CSV'))}"
    between = "\t" if path.suffix == ".tsv" else rng.choice(",,;\t|")
    data = _parquet(rng, names, rows) if path.suffix == ".parquet" else _csv(rng, names, rows, between)
    path.write_bytes(mutated(rng, data) if rng.random() < 0.2 else data)
    return _load(rng, path, labels=labels or None)


def _csv(rng: Random, names: list[str], rows: list[list[str]], between: str) -> bytes:
    ends = rng.choice(("\n", "\n", "\r\n", "\r\n", "\r"))
    quote = rng.choice(("", "", '"'))
    lines = [between.join(f"{quote}{cell}{quote}" for cell in row) for row in (names, *rows)]
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(("", between * 2000, "x" * 200_000, '"', "\0", "#")))
    if rng.random() < 0.1:
        lines = [between.join(f"{cell}{number}" for number in range(3000) for cell in names), *lines]
    text = ends.join(lines)
    return text.encode(rng.choice((*["utf-8"] * 6, "utf-8-sig", "utf-16", "utf-32", "cp037")), "replace")


def _parquet(rng: Random, names: list[str], rows: list[list[str]]) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns: list[Any] = [
        arrow.array([row[place].encode("utf-8", "replace").decode() for row in rows]) for place in range(4)
    ]
    count, place = len(rows), rng.randrange(12)
    others: list[Any] = [
        [{"bytes": png(), "path": None}] * count, [png()] * count, [mutated(rng, png())] * count, [None] * count,
        [{"bytes": None, "path": "0.png"}] * count, [[1, 0]] * count, [[]] * count, [[None]] * count,
        [float("nan")] * count, [2**63 - 1] * count, [pd.Timestamp(0)] * count, [True, None] * count,
        [{"a": None}] * count, [{"a": {"b": [1]}}] * count, [b""] * count, ["a"] * count,
    ]  # fmt: skip
    if place < 4:
        columns[place] = arrow.array(rng.choice(others)[:count])
        if rng.random() < 0.2 and arrow.types.is_string(columns[place].type):
            columns[place] = columns[place].dictionary_encode()
    names = [name.encode("utf-8", "replace").decode() for name in names]
    stream = io.BytesIO()
    made = arrow.Table.from_arrays(columns, names=names)
    parquet.write_table(made, stream, compression=rng.choice(("none", "snappy", "gzip", "zstd")))
    return stream.getvalue()


def shards(rng: Random, folder: Path) -> Try:
    """Shards of tar files: damaged ones, links, pipes, odd names, sizes that are made up, labels of every kind."""
    stream = io.BytesIO()
    kind = rng.choice((*["w"] * 9, "w:gz", "w:xz"))
    with tarfile.open(
        fileobj=stream, mode=kind, format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    ) as archive:
        for number in range(6):
            _add(archive, f"{number:04}.png", png() if rng.random() < 0.97 else mutated(rng, png()))
            label = str(number % 2) if rng.random() < 0.95 else rng.choice((*CELLS, *ODD_TEXT))
            if rng.random() < 0.05:
                label = _record(rng, label)
                _add(archive, f"{number:04}.json", label.encode("utf-8", "replace"))
            elif rng.random() < 0.98:
                _add(archive, f"{number:04}.{rng.choice(('cls', 'cls', 'txt'))}", label.encode("utf-8", "replace"))
            if rng.random() < 0.05:
                _add_odd(archive, rng)
    data = stream.getvalue()
    where = folder / rng.choice(("t.tar", "train-0000.tar", "val.tar", "T.TAR"))
    where.write_bytes(mutated(rng, data) if rng.random() < 0.3 else data)
    beside = rng.randrange(8)
    if beside == 0:
        os.mkfifo(folder / "u.tar")
    elif beside == 1:
        (folder / "u.tar").write_bytes(rng.choice((b"", bytes(512), bytes(10240), data[: rng.randrange(len(data))])))
    elif beside == 2:
        (folder / "u.tar").symlink_to(rng.choice(("nowhere", "u.tar", "/dev/zero", where.name)))
    labels = rng.choice((*[None] * 12, "cls", "json", "a", rng.choice(ODD_TEXT) or None))
    images = rng.choice((*[None] * 12, "png", "jpg", "."))
    return _load(rng, rng.choice((where, where, folder)), labels=labels, images=images)


def _record(rng: Random, label: str) -> str:
    import json

    value = rng.choice((label, rng.choice(ODD_VALUES), {"label": label}, {"label": rng.choice(ODD_VALUES)}))
    return rng.choice(
        (json.dumps(value), json.dumps(value), "[" * 100_000, "{", "9" * 5000, '{"label": 1, "label": 2}')
    )


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _add_odd(archive: tarfile.TarFile, rng: Random) -> None:
    names = (
        "../0001.png",
        "/etc/passwd",
        "0001.png",
        "a/" * 60 + "b.png",
        ".png",
        "x.",
        "\x1b[2J.png",
        "ü.png",
        "n" * 300,
    )
    member = tarfile.TarInfo(rng.choice(names))
    kind = rng.randrange(4)
    if kind == 0:
        member.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE))
        member.linkname = rng.choice(("/etc/passwd", "0001.png", member.name))
        archive.addfile(member)
    elif kind == 1:  # more bytes than there are
        member.size = rng.choice((1, 2**20, 2**33, 2**40))
        archive.fileobj.write(member.tobuf(format=tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    elif kind == 2:
        member.pax_headers = {
            rng.choice(("size", "path", "GNU.sparse.size", "GNU.sparse.map")): rng.choice(("-1", "9" * 30, "a"))
        }
        archive.addfile(member)
    else:
        _add(archive, member.name, np.random.default_rng(rng.randrange(9)).bytes(100))
