"""From a folder of pictures to predictions on new ones in four commands, timed; and every page as a browser shows it.

    TRANSFERSCOPE_REAL=... python benchmarks/pages.py [--pictures FOLDER]

The commands are run as a new user runs them, in processes of their own and an empty home, on TrashNet with two real
networks. The pages are those of every verb on the demo, and of rankings and comparisons as large as they get; each is
opened five times in Chromium. With `--pictures` each is taken at the width of a desktop and of a phone, to be looked
at. Writes results/pages.md; without TRANSFERSCOPE_REAL the four commands are left out, and nothing is written.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr
from groundtruth.sources import unpack
from playwright.sync_api import Page, sync_playwright
from speed.naive import WORKLOADS, write_zoo

from report.screenshot import screenshot
from transferscope.results.ranking import load_ranking
from transferscope.verbs.demo.make import SHOTS

RESULTS = Path(__file__).parents[1] / "results"
WORKLOAD = WORKLOADS["a"]._replace(sources=2)
NEW_IMAGES = 20
ROUNDS = 5
WIDTHS = {"desktop": 1200, "phone": 390}
LARGEST = {"sources": 200, "layers": 150}


def run(folder: Path, home: Path, *arguments: str) -> float:
    """Run a command of transferscope in the folder; return its seconds."""
    print("$ transferscope", *arguments, file=sys.stderr)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "transferscope", *arguments],
        cwd=folder, env=os.environ | {"TRANSFERSCOPE_HOME": str(home)}, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - started


def four_commands(real: Path, folder: Path) -> dict[str, float]:
    """Go from pictures to predictions; return the seconds of each command."""
    target, new = unpack(real, "trashnet", folder), folder / "new"
    new.mkdir()
    pictures = sorted(path for path in target.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in pictures[:: len(pictures) // NEW_IMAGES]:
        path.rename(new / path.name)
    write_zoo(folder, real / "zoo", WORKLOAD)
    asked = ["--target", "trashnet", "--sources", "zoo.yaml", "-q"]
    commands = {
        "validate": ["validate", "zoo.yaml"],
        f"rank --protocol truncate --samples {WORKLOAD.images}": [
            "rank", *asked, "--protocol", "truncate", "--samples", str(WORKLOAD.images), "-o", "ranked",
        ],
        "transfer --ranking ranked": ["transfer", *asked, "--ranking", "ranked", "-o", "model"],
        "predict model/ new/": ["predict", "model", "new", "-o", "predictions.csv", "-q"],
    }  # fmt: skip
    seconds = {name: run(folder, folder / "home", *command) for name, command in commands.items()}
    found = (folder / "predictions.csv").read_text().splitlines()
    assert len(found) == len(list(new.iterdir())) + 1, "predictions.csv has no line for each picture"
    return seconds


def pages_of_the_demo(folder: Path) -> Iterator[Path]:
    """Run every verb that has a page, on the demo; yield the pages."""
    home = folder / "home"
    run(folder, home, "demo", "-q", "-o", "demo")
    yield folder / "demo" / "results" / "report.html"
    asked = ["--target", "demo/target", "--sources", "demo/zoo.yaml", "--trust-code", "-q"]
    for verb, rest in {
        "advise": [*asked, "--shots", "16"],
        "measure": [*asked, "--protocols", "truncate,finetune", "--depths", "4,8", "--samples-per-class", str(SHOTS)],
        "compare": ["letter-groups", "gratings", *asked],
        "parameters": [*asked, "--samples-per-class", "16", "--epochs", "10"],
    }.items():
        run(folder, home, verb, *rest, "-o", verb)
        yield folder / verb / "report.html"


def largest_ranking(folder: Path, results: Path) -> Path:
    """Save the ranking of the demo as if it had as many sources, of as many layers, as a laboratory has."""
    one = load_ranking(results)
    source = one.scores.sel(source=["letter-groups"])
    depths = source.sizes["depth"]
    deep = source.isel(depth=np.arange(LARGEST["layers"]) % depths)
    deep = deep.assign_coords(depth=np.arange(1, LARGEST["layers"] + 1))
    names = [f"source-{number}-of-a-rather-long-name" for number in range(LARGEST["sources"])]
    scores = xr.concat([deep.assign_coords(source=[name]) for name in names], "source", data_vars="all").assign_attrs(
        one.scores.attrs
    )
    first = next(pick for pick in one.recommendations if pick.layer is not None)
    picks = tuple(replace(first, source=name, rank=number) for number, name in enumerate(names, 1))
    replace(one, scores=scores, recommendations=picks).save(folder)
    return folder / "report.html"


def seconds_to_open(tab: Page, page: Path) -> float:
    """Return the seconds until all of a page is loaded and painted: the median of `ROUNDS`."""
    taken = []
    for _ in range(ROUNDS):
        tab.goto("about:blank")
        started = time.perf_counter()
        tab.goto(page.resolve().as_uri(), wait_until="load")
        tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="a folder for pictures of every page")
    kept = parser.parse_args().pictures
    real = os.environ.get("TRANSFERSCOPE_REAL")
    lines = ["# From pictures to predictions, and every page\n", "Made by `python benchmarks/pages.py`.", machine()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if real:
            (folder / "real").mkdir()
            seconds = four_commands(Path(real), folder / "real")
            lines += [
                f"\n## Four commands\n\nTrashNet, two MobileNetV2 at {WORKLOAD.side} px, an empty cache; of "
                f"all images {NEW_IMAGES} or one more are the new ones. Every command is a process of its own.\n",
                "| `transferscope` | seconds |", "|---|---|",
                *(f"| `{command}` | {value:.1f} |" for command, value in seconds.items()),
                f"| all | {sum(seconds.values()):.0f} |",
            ]  # fmt: skip
        pages = {page.parent.name.replace("results", "rank"): page for page in pages_of_the_demo(folder)}
        pages[f"rank, {LARGEST['sources']} sources × {LARGEST['layers']} layers"] = largest_ranking(
            folder / "largest", folder / "demo" / "results"
        )
        lines += [
            f"\n## Pages\n\nOf the demo; opened {ROUNDS} times each in Chromium, the median.\n",
            "| page of | MB | seconds to open |", "|---|---|---|",
        ]  # fmt: skip
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": WIDTHS["desktop"], "height": 900})
            for verb, page in pages.items():
                size = page.stat().st_size / 1e6
                lines.append(f"| {verb} | {size:.2f} | {seconds_to_open(tab, page):.2f} |")
            browser.close()
        lines.append(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.")
        text = "\n".join(lines) + "\n"
        print(text)
        if real:
            (RESULTS / "pages.md").write_text(text)
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            for page in pages.values():
                for device, width in WIDTHS.items():
                    height = 3000 if page.parent.name == "largest" else 0
                    screenshot(page, kept / f"{page.parent.name}-{device}.png", width=width, height=height)


def machine() -> str:
    names = ("transferscope", "torch", "timm")
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names) + "."
    )  # fmt: skip


if __name__ == "__main__":
    main()
