"""What the first `rank` of a new home opens to write, seen from outside the process."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CALLS = "openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat"
OPENED = re.compile(r"\bopen(at)?\(")
TO_WRITE = re.compile("O_WRONLY|O_RDWR|O_CREAT")
PLACE_OF_ITS_OWN = ("out", "home/.cache/transferscope")


def said(place: Path, arguments: list[str]) -> str:
    """Run a command in `place` with an empty home there, and return a paragraph on what it changed elsewhere."""
    begins = "With an empty home, where libraries write at their first import, the system calls of one `rank`"
    if shutil.which("strace") is None:
        return f"{begins} were not looked at: there was no strace."
    home, log = place / "home", place / "trace"
    for name in ("out", "home"):
        shutil.rmtree(place / name, ignore_errors=True)
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRANSFERSCOPE", "XDG"))}
    subprocess.run(
        ["strace", "-f", "-e", f"trace={CALLS}", "-e", "status=successful", "-o", str(log),
         sys.executable, "-m", "transferscope", *arguments],
        cwd=place, env=environment | {"HOME": str(home)}, check=True, capture_output=True,
    )  # fmt: skip
    changed = (f"`{path}`" for path in sorted(elsewhere(log.read_text(errors="replace"), place)))
    return f"{begins} changed, outside its output and its cache: {', '.join(changed) or 'none'}."


def say_again(results: Path, place: Path, arguments: list[str]) -> None:
    """Write the last line of a report anew."""
    *before, _ = results.read_text(encoding="utf-8").splitlines()
    results.write_text("\n".join([*before, said(place, arguments)]) + "\n", encoding="utf-8")


def elsewhere(trace: str, place: Path) -> set[str]:
    """Return the paths that a trace changes outside the output and the cache folder, random parts as ``*``."""
    found = set()
    ours = tuple(str(place / name) for name in PLACE_OF_ITS_OWN)
    for line in trace.splitlines():
        if OPENED.search(line) and not TO_WRITE.search(line):
            continue
        for path in re.findall(r'"((?:[^"\\]|\\.)*)"', line):
            whole = os.path.normpath(place / path)
            if not whole.startswith(ours) and whole not in (str(place), "/dev/null") and os.path.isabs(path):
                short = whole.replace(str(place / "home"), "~")
                found.add(re.sub(r"(?<=/dev/shm/sem\.).*|(?<=^/tmp/)[a-z0-9_]{8}$", "*", short))
    return {path for path in found if not any(other.startswith(f"{path}/") for other in found)}
