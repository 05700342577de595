"""What processes share, damaged or odd: entries of the cache, and leases; see `inputs`."""

import os
import warnings
from pathlib import Path
from random import Random

import numpy as np

from faults.words import ODD_TEXT, Try, WrongError, mutated


def cache_entry(rng: Random, folder: Path) -> Try:
    """Entries of the cache: damaged, torn and empty ones, of another version, other arrays or words, pipes, folders."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    from transferscope.runtime.store import Store, digest

    store = Store(folder)
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(3, np.int64)}
    store.put("features", "ab" * 32, arrays, {"layers": ["a", "b"]})
    (path,) = folder.rglob("*.safetensors")
    kind = rng.randrange(11)
    if kind < 4:
        path.write_bytes(mutated(rng, path.read_bytes()))
    elif kind == 4:
        with safe_open(path, "np") as file:
            words = dict(file.metadata())
        words[rng.choice(list(words))] = rng.choice([text for text in ODD_TEXT if "\0" not in text])
        save_file(load_file(path), path, words)
    elif kind == 5:
        with safe_open(path, "np") as file:
            words = dict(file.metadata())
        other = rng.choice((np.zeros((3, 4), np.float32), np.zeros((4, 3), np.float32), np.zeros((3, 4)), np.zeros(0)))
        save_file({"a": other, "b": arrays["b"]}, path, words)
    elif kind == 6:  # what a machine that goes down leaves
        path.write_bytes(bytes(rng.choice((0, path.stat().st_size))))
    elif kind == 7:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
    elif kind == 8:
        with safe_open(path, "np") as file:
            words = {**file.metadata(), "layout": rng.choice(("1", "3"))}
        words.pop("checksum")
        save_file(load_file(path), path, words | {"checksum": digest(words)})
    else:
        path.unlink()
        os.mkfifo(path) if kind == 9 else path.mkdir()

    def attempt() -> None:
        found = store.get("features", "ab" * 32)
        if found is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a folder in its place
                store.put("features", "ab" * 32, arrays, {"layers": ["a", "b"]})
            found = store.get("features", "ab" * 32)
            if found is None and kind != 10:
                raise WrongError("what was computed again was not kept")
        if found is None:
            return
        if found[1] != {"layers": ["a", "b"]} or any((found[0][name] != array).any() for name, array in arrays.items()):
            raise WrongError("a changed entry was taken for its own")

    return attempt


def lease(rng: Random, folder: Path) -> Try:
    """Leases: torn, empty, of dead holders here and elsewhere, of the future; pipes, folders, links in their place."""
    from transferscope.runtime import leases

    path = folder / "leases" / "features"
    path.parent.mkdir()
    held = f"{leases.here()} 4194304".encode()  # a number that no process has
    kind = rng.randrange(8)
    if kind < 3:
        contents = (held, b"", held[:3], bytes(40), mutated(rng, held), b"elsewhere 1", b"\xff" * 999)
        path.write_bytes(rng.choice(contents))
    elif kind == 3:
        path.write_text(rng.choice(ODD_TEXT), encoding="utf-8", errors="replace")
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.mkdir()
        (path / "x").write_bytes(b"")
    elif kind == 6:
        path.symlink_to(rng.choice(("nowhere", path.name, "/dev/zero", "/dev/full", ".", "/proc/self/mem")))
    else:
        path.parent.rmdir()
        path.parent.write_bytes(b"")
    if kind < 4 and rng.random() < 0.3:
        when = rng.choice((0, 2**33))
        os.utime(path, (when, when))

    def attempt() -> None:
        before = leases.PATIENCE_S, leases._ASKED_EVERY_S
        leases.PATIENCE_S, leases._ASKED_EVERY_S = 0.02, 0.005
        try:
            for wait in (False, True, False):
                with leases.lease(path, "features", wait=wait) as told:
                    pass
            if not told:
                raise WrongError("nobody can have it any more")
        finally:
            leases.PATIENCE_S, leases._ASKED_EVERY_S = before

    return attempt
