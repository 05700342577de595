"""Inputs that are damaged, hostile or odd, made by a seed: each kind writes one into a folder, and says how to try it.

Each kind is a function of a random generator and an empty folder. What it returns is called once: it ends well, or with
an error of transferscope. `Wrong` says that it ended well and should not have.
"""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from faults.cache import cache_entry, lease
from faults.targets import shards
from faults.targets import table as table_target
from faults.words import ODD_TEXT, ODD_VALUES, Try, WrongError, mutated, pictures


def _refused(problems: list[str]) -> None:
    from transferscope.errors import InputError

    if problems:
        raise InputError("\n".join(problems))


def image(rng: Random, folder: Path) -> Try:
    """Pictures: damaged ones of every format, some that claim other sizes; PostScript and PDF."""
    from transferscope.data.decoding import look_at, read_raster
    from transferscope.data.reading import Reading

    data = rng.choice(pictures())
    if data.startswith(b"\x89PNG") and rng.random() < 0.5:
        sides = struct.pack(">II", *(rng.choice((0, 1, 7, 2000, 20_000, 2**31 - 1)) for _ in range(2)))
        data = (
            data[:16] + sides + data[24:29] + struct.pack(">I", zlib.crc32(b"IHDR" + sides + data[24:29])) + data[33:]
        )
    else:
        data = mutated(rng, data)

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own remarks
            look_at(data)
            read_raster(data)
            Reading().decode(data)

    return attempt


def target(rng: Random, folder: Path) -> Try:
    """Target folders: pipes, devices, links, loops, odd names, deep folders, results, files that are damaged."""
    from transferscope.data.target import load_target
    from transferscope.runtime.marker import mark

    root = folder / "target"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for place in range(3):
            (root / name / f"{place}.png").write_bytes(pictures()[2])
    for _ in range(rng.randrange(1, 6)):
        where = root / rng.choice(("a", "b", "c"))
        where.mkdir(exist_ok=True)
        path = where / (str(rng.randrange(99)) + rng.choice((".png", ".jpg", "", ".zip", "\x1b[2J.png", ".tif")))
        if os.path.lexists(path):
            continue
        kind = rng.randrange(9)
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/stdin", ".", "..", "nowhere", path.name, "/proc/self/fd/0")))
        elif kind == 2:
            path.write_bytes(mutated(rng, rng.choice(pictures())))
        elif kind == 3:
            path.mkdir()
            mark(path)
            (path / "heat.png").write_bytes(pictures()[2])
        elif kind == 4:
            deep = path
            for _ in range(rng.choice((3, 120))):
                deep = deep / "d"
            deep.mkdir(parents=True)
        elif kind == 5:
            path.write_bytes(b"")
            with open(os.fsencode(where) + b"/\xff\xfe.png", "wb") as file:
                file.write(pictures()[2])
        elif kind == 6:
            with path.open("wb") as file:
                file.truncate(rng.choice((1, 2**20, 2**40)))
        elif kind == 7:
            (where / rng.choice((".git", "train", "test", "@eaDir", "n" * 250))).mkdir(exist_ok=True)
        else:
            path.write_bytes(pictures()[2])

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = load_target(root)
            if any(name in ("heat.png",) for name in loaded.classes):
                raise WrongError("results became a class")
            loaded.probe(4)

    return attempt


def zoo(rng: Random, folder: Path) -> Try:
    """Zoo files: damaged text, values of other kinds, names of places, numbers too long, aliases, tags, nesting."""
    from transferscope.networks.checking import check_sources
    from transferscope.networks.zoo import load_zoo

    path = folder / "zoo.yaml"
    os.mkfifo(folder / "pipe.pt")
    (folder / "nets.py").write_text("def build(): pass\n")
    entries = [
        {"name": "a", "loader": "timm", "model": "test_resnet", "kwargs": {"num_classes": 3}},
        {"name": "b", "loader": "python", "factory": "nets.py:build", "transform": {"size": 8}},
        {
            "name": "c",
            "loader": "timm",
            "model": "test_vit",
            "checkpoint": rng.choice(("pipe.pt", "none.pt", "/dev/zero")),
        },
    ]
    content: dict[Any, Any] = {"version": 1, "sources": entries[: rng.randrange(1, 4)]}
    for _ in range(rng.randrange(4)):
        sources = content.get("sources")
        where: Any = rng.choice((content, *sources)) if isinstance(sources, list) else content
        keys = [
            "name", "loader", "model", "factory", "checkpoint", "kwargs", "transform", "layers", "accuracy", "images",
            "weights", "initial", "checkpoint_key", "version", "order", rng.choice(ODD_TEXT),
        ]  # fmt: skip
        if isinstance(where, dict):
            where[rng.choice(keys)] = rng.choice((rng.choice(ODD_TEXT), rng.choice(ODD_VALUES)))
    text = yaml.safe_dump(content, allow_unicode=True)
    letters = "bcdefghij"
    laughs = [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise(letters)]
    extra = [
        "", "", "", "a: &a [*a]\n", "x: !!timestamp x\n", "x: !!bool x\n", "x: !!binary ü\n", "? [a]\n: 1\n",
        "x: " + "9" * 5000, "[" * 2000, "{a: " * 500, "x: !!python/name:os.system\n", "<<: 3\n", "x: 1:2:3\n" * 2, "\t",
        "%YAML 9\n---\n", "&a " * 40, "".join(["b: &b [x]\n", *laughs]),
    ]  # fmt: skip
    data = (rng.choice(extra) + text + rng.choice(extra)).encode("utf-8", "surrogatepass")
    path.write_bytes(mutated(rng, data) if rng.random() < 0.5 else data)

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _refused(check_sources(load_zoo(path))[0])

    return attempt


@cache
def _weights() -> tuple[bytes, ...]:
    import safetensors.torch
    import timm
    import torch

    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    streams = []
    for content in (state, {"state_dict": state, "epoch": 3, "args": {"lr": 0.1}}):
        for archive in (True, False):
            streams.append(io.BytesIO())
            torch.save(content, streams[-1], _use_new_zipfile_serialization=archive)
    return (*(stream.getvalue() for stream in streams), safetensors.torch.save(state))


@cache
def _network() -> Any:
    import timm

    return timm.create_model("test_resnet", num_classes=3)


@cache
def _many(count: int) -> bytes:
    return pickle.dumps(dict.fromkeys(map(str, range(count))), protocol=2)


def checkpoint(rng: Random, folder: Path) -> Try:
    """Checkpoints: damaged ones of every format; pickles that run, allocate, hold themselves; archives that grow."""
    from transferscope.networks.checkpoints import load_checkpoint

    ending = rng.choice((".pt", ".pt", ".bin", ".safetensors"))
    path = folder / f"w{ending}"
    kind = rng.randrange(8)
    data = _weights()[-1] if ending == ".safetensors" else rng.choice(_weights()[:-1])
    size = struct.pack("<BBq", 0x8A, 8, rng.choice((1, 2**20, 4_800_000_000, -1)))
    if kind == 0:
        called = rng.choice(
            (b"builtins\nbytearray", b"torch\nTensor", b"torch\nFloatTensor", b"os\nsystem", b"collections\nCounter")
        )
        data = _with_pickle(b"\x80\x02}X\1\0\0\0aq\0c" + called + b"\n" + size + b"\x85Rs.")
    elif kind == 1:
        inner: dict[str, Any] = {}
        inner["self"] = rng.choice((inner, {"deeper": inner}))
        data = _with_pickle(pickle.dumps(inner, protocol=2))
    elif kind == 2:
        data = _with_pickle(_many(rng.choice((10, 10_000, 400_000))))
    elif kind == 3:
        data = _with_pickle(pickle.dumps({}), more=bytes(rng.choice((10, 2**26))), compression=zipfile.ZIP_DEFLATED)
    elif kind == 4:
        deep: Any = {}
        for _ in range(rng.choice((3, 300))):
            deep = {"a": deep, "b": deep}
        data = _with_pickle(pickle.dumps(deep, protocol=2))
    else:
        data = mutated(rng, data)
    path.write_bytes(data)
    module = _network()

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_checkpoint(module, path)

    return attempt


@cache
def _with_pickle(data: bytes, more: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_weights()[0])) as archive, zipfile.ZipFile(stream, "w", compression) as result:
        for name in archive.namelist():
            result.writestr(name, data if name.endswith("data.pkl") else archive.read(name))
        result.writestr("archive/data/999", more)
    return stream.getvalue()


CODE = b"""\
import os
import helper
from torch import nn

def build(width: int = 3):
    return nn.Sequential(nn.Conv2d(3, width, 3))
"""


def code(rng: Random, folder: Path) -> Try:
    """Files of factories, looked at and not run: damaged ones, no Python, nested too deeply, huge."""
    from transferscope.networks.loading import fingerprint
    from transferscope.networks.zoo import check_files, load_zoo

    deep = rng.choice((b"(", b"[", b"-", b"not ", b"lambda: ", b"a.", b"f(")) * rng.choice((10, 3000, 100_000))
    data = rng.choice((mutated(rng, CODE), CODE + b"x = " + deep, deep, b"\xff" + CODE, CODE + b"\0"))
    (folder / "nets.py").write_bytes(data)
    (folder / "helper.py").write_bytes(mutated(rng, CODE))
    (folder / "zoo.yaml").write_text(
        "version: 1\nsources:\n  - {name: a, loader: python, factory: nets.py:build, transform: {size: 8}}\n"
    )

    def attempt() -> None:
        sources = load_zoo(folder / "zoo.yaml")
        fingerprint(sources["a"])
        _refused(check_files(sources))

    return attempt


@cache
def _features() -> tuple[tuple[str, bytes], ...]:
    import tempfile

    import xarray as xr

    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(12, 4)).astype(np.float32), np.repeat([0, 1, 2], 4)
    packed, plain, squeezed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(packed, features=values, labels=labels)
    np.savez_compressed(squeezed, features=np.zeros((3000, 6000)), labels=np.arange(3000) % 3)
    np.save(plain, values)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "f.nc"
        xr.Dataset({"features": (("sample", "feature"), values), "labels": ("sample", labels)}).to_netcdf(
            path, engine="h5netcdf"
        )
        netcdf = path.read_bytes()
    return (".npz", packed.getvalue()), (".npy", plain.getvalue()), (".nc", netcdf), (".npz", squeezed.getvalue())


def features(rng: Random, folder: Path) -> Try:
    """Files of features: damaged ones, archives that grow, shapes that are too large, Python objects."""
    from transferscope.verbs.score import read_features

    ending, data = rng.choice(_features())
    path, labels = folder / f"f{ending}", folder / "labels.npy"
    np.save(labels, np.repeat([0, 1, 2], 4))
    if ending == ".npy" and rng.random() < 0.5:
        shape = rng.choice(("(10000000000, 4)", "(-1, 4)", "(12, 4", "(12, 4, 1)", "()", "(2**70,)", "(" * 500))
        kind = rng.choice(("<f4", "|O", "<U3", "<M8[s]", "V8", "(9,)f4"))
        words = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        data = b"\x93NUMPY\1\0" + struct.pack("<H", len(words)) + words.encode() + bytes(192)
    elif len(data) < 50_000:
        data = mutated(rng, data)
    path.write_bytes(data)

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_features(path, labels if ending == ".npy" else None)

    return attempt


@cache
def _tables() -> tuple[tuple[str, bytes], ...]:
    import transferscope
    from transferscope.verbs.measure.rows import COLUMNS

    lines = [",".join(COLUMNS)]
    lines += [
        f"s{place % 3},t,truncate,{place % 4},4,l{place % 4},5,15,{place % 2},0.{place + 40},0.5,1.5,1e9,,,1e8,1,done"
        for place in range(30)
    ]
    calibration = Path(transferscope.__file__).parent / "prediction" / "calibration.json"
    return ("runs.csv", "\n".join(lines).encode()), ("calibration.json", calibration.read_bytes())


def table(rng: Random, folder: Path) -> Try:
    """Tables of runs, their settings and calibrations: damaged ones, other values, nested too deeply."""
    from transferscope.prediction.calibration import load_calibration
    from transferscope.prediction.evidence import read_evidence

    name, data = rng.choice(_tables())
    if name == "runs.csv":
        for _ in range(rng.randrange(3)):
            cells = data.split(b",")
            cells[rng.randrange(len(cells))] = rng.choice(ODD_TEXT).encode("utf-8", "replace")
            data = b",".join(cells)
        settings = rng.choice(
            (b"[" * 5000, b"{}", b'{"target": {"hash": []}, "sources": 3}', b'{"target": 1e999}', b"\xff")
        )
        (folder / "measure.json").write_bytes(settings)
        (folder / "measurement.json").write_bytes(rng.choice((settings, b'{"target": {"n_test": -1}}')))
    (folder / name).write_bytes(mutated(rng, data) if rng.random() < 0.7 else data)

    def attempt() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_evidence([folder]) if name == "runs.csv" else load_calibration(folder / name)

    return attempt


def numbers(rng: Random, folder: Path) -> Try:
    """Features and labels in memory: too large, too small, missing, masked, of other types and shapes."""
    import transferscope as ts
    from transferscope import similarity

    draw = np.random.default_rng(rng.randrange(2**32))
    rows = rng.choice((1, 2, 5, 30))
    values: Any = draw.normal(size=(rows, rng.choice((1, 3, 40))))
    values = values * rng.choice((1, 0, 1e300, 1e-300, 1e-200, 1e150, 1e40, -1, 1e-40))
    with np.errstate(all="ignore"):
        values = values.astype(rng.choice(("f8", "f4", "f2", "i8", "?", "c16", "O", "f8", "f8")))
    if rng.random() < 0.2:
        values = rng.choice(
            (np.ma.masked_array(values, values == values.flat[0]), values[0], values[None], values[:, :0])
        )
    elif rng.random() < 0.2 and values.dtype.kind == "f":
        values.flat[0] = rng.choice((np.nan, np.inf))
    whole = np.arange(rows)
    labels: Any = rng.choice(
        (
            whole % 2, whole, np.zeros(rows), ["a", "b"] * (rows // 2), None, whole / 2, -np.ones(rows, int),
            np.ma.masked_array(whole % 2, whole == 0), [[0], [1]], np.arange(rows + 1) % 2,
        )
    )  # fmt: skip
    measure = rng.choice(("linear_cka", "cca", "svcca", "procrustes", "rsa", "mutual_knn", "information_imbalance"))

    def attempt() -> None:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if rng.random() < 0.3:
                getattr(similarity, measure)(values, values[::-1])
            else:
                ts.score(values, labels)

    return attempt


def command(rng: Random, folder: Path) -> Try:
    """Command lines: every verb and option with odd values, on an empty target."""
    from transferscope.cli import VERBS, cli

    verb = rng.choice([name for name in VERBS if name != "demo"])
    parameters = cli.get_command(None, verb).params  # type: ignore[arg-type]
    (folder / "zoo.yaml").write_text(
        "version: 1\nsources:\n  - {name: a, loader: timm, model: test_resnet, weights: none}\n"
    )
    (folder / "empty").mkdir()
    words = [verb]
    for parameter in parameters:
        if parameter.name in ("device", "jobs"):
            continue
        value = rng.choice((rng.choice(ODD_TEXT), rng.choice(("1", "2.5", "all", "5,10", "json", "truncate", "logme"))))
        value = value.replace("\0", "?")
        if parameter.name == "target":
            value = rng.choice((str(folder / "empty"), str(folder / "none"), "~no-such-user/t", "n" * 300))
        elif parameter.name == "zoo":
            value = rng.choice((str(folder / "zoo.yaml"), str(folder / "none.yaml"), "n" * 300, "/dev/zero"))
        elif parameter.name == "output":
            value = rng.choice(
                (str(folder / "out"), "~no-such-user/out", str(folder / ("n" * 300)), str(folder / "zoo.yaml"))
            )
        elif parameter.param_type_name == "option" and (not parameter.required) and rng.random() < 0.7:
            continue
        if parameter.param_type_name == "argument":
            words.append(value if rng.random() < 0.7 else str(folder / "zoo.yaml"))
        elif getattr(parameter, "is_flag", False):
            words.append(max(parameter.opts, key=len))
        else:
            words += [max(parameter.opts, key=len), value]
    return lambda: run_command(words)


def run_command(words: list[str]) -> None:
    """Run a command line in this process; raise what ends in anything but a sentence."""
    import contextlib
    import logging

    import transferscope.cli

    said = io.StringIO()
    logger = logging.getLogger("transferscope")
    before = logger.level, logger.handlers, logger.propagate, warnings.showwarning
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = transferscope.cli.run(words)
    finally:
        logger.level, logger.handlers, logger.propagate, warnings.showwarning = before
    text = said.getvalue()
    if "bug in transferscope" in text or "Traceback" in text or status not in (0, 1, 2, 3):
        raise WrongError(f"{json.dumps(words)[:500]}: status {status}: {text[-500:]}")
    if status:
        from transferscope.errors import InputError

        raise InputError(text[-500:])


KINDS: dict[str, Callable[[Random, Path], Try]] = {
    "pictures": image, "target folders": target, "zoo files": zoo, "checkpoints": checkpoint, "factory code": code,
    "cache entries": cache_entry, "feature files": features, "tables and calibrations": table, "numbers": numbers,
    "command lines": command, "tables": table_target, "shards": shards, "leases": lease,
}  # fmt: skip
