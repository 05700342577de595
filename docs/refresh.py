"""Run what the documentation shows, and put what came out back into it: `python docs/refresh.py [PAGE ...]`.

A block of code (```bash or ```python) with the line `<!-- output -->` below it is run, all of a page in order and all
pages in one folder, and what it prints (with `<!-- output and stderr -->` all of it) replaces the block ```text that
follows. Below `<!-- picture: FILE -->` stands an image; its file is replaced by that one, with fewer colours. Without
pages the README and all of docs/ are done, which takes some minutes.
"""

import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FIRST = [ROOT / "docs" / "tutorial.md", ROOT / "README.md"]  # what others look at is made there

BLOCK = re.compile(r"```(bash|python)\n((?:(?!```).)*)```\n\n<!-- output( and stderr)? -->\n```text\n.*?```", re.DOTALL)
PICTURE = re.compile(r"<!-- picture: (\S+) -->\n!\[[^\]]*\]\(([^)]+)\)")
COLOURS = 256


def run(folder: Path, block: re.Match[str]) -> str:
    """Run a block in the folder and return it with its output."""
    language, code, stderr = block.groups()
    shell = ["bash", "-ec", code.replace("pip install . && ", "")]
    print(f"$ {code}", file=sys.stderr)
    done = subprocess.run(
        shell if language == "bash" else [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"TRANSFERSCOPE_HOME": str(folder / "home"), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stderr else None,
        text=True,
    )
    if done.returncode and not stderr:
        raise SystemExit(f"exit code {done.returncode}")
    lines = "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())
    return block[0][: block[0].rindex("```text\n")] + f"```text\n{lines}\n```"


def take(folder: Path, page: Path, block: re.Match[str]) -> str:
    """Copy a picture to where the page has it."""
    with Image.open(folder / block[1]) as picture:
        small = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
        small.save(page.parent / block[2], optimize=True)
    return block[0]


def main(pages: list[Path]) -> None:
    """Bring these pages up to date."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("REFRESH_FOLDER", name))
        for page in pages:
            text = BLOCK.sub(partial(run, folder), page.read_text(encoding="utf-8"))
            PICTURE.sub(partial(take, folder, page), text)
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    chosen = [Path(argument).resolve() for argument in sys.argv[1:]]
    main(chosen or FIRST + sorted(set((ROOT / "docs").rglob("*.md")) - set(FIRST)))
