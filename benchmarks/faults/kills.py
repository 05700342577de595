"""Kill `rank`, `compare` and `measure` inside every write, before every step on the disk and at random instants.

    python benchmarks/kills.py [--random 100] [--minutes 1] [--first-run]

Each trial begins with the files of an earlier run in the output folder and an empty cache. After the kill that folder
is looked at; then the same command runs again, and its files are compared with those of a run that nobody killed.
Pictures and the page are drawn once and used again, for drawing writes nothing. At the end eight processes share a
cache. Writes `results/kills.md`.
"""

import argparse
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import first_run

RESULTS = Path(__file__).resolve().parents[1] / "results" / "kills.md"

STEPS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
KILLED = (9, -signal.SIGKILL, -signal.SIGXFSZ)
BYTES = 20
"""So many bytes of a file are written before a kill inside a write."""

COMMON = ["--target", "data", "--sources", "zoo.yaml", "--trust-code", "--device", "cpu", "-o", "out", "-q"]
VERBS = {
    "rank": ["rank", *COMMON, "--reference-epochs", "1"],
    "compare": ["compare", "one", "two", *COMMON, "--measure", "linear_cka"],
    "measure": ["measure", *COMMON, "--protocols", "nearest_mean", "--samples-per-class", "2,3", "--depths", "1,3",
                "--seeds", "1"],
}  # fmt: skip
EARLIER = {
    "rank": [*VERBS["rank"], "--seed", "7"],
    "compare": [*VERBS["compare"], "--seed", "7", "--measure", "rsa"],  # of which a picture has to go
    "measure": ["2" if word == "2,3" else word for word in VERBS["measure"]],  # the table goes on
}

TIMES = ("seconds", "kwh", "kgco2e", "latency", "peak_memory", "energy")


@dataclass
class Tally:
    """What was seen of one kind of kill."""

    kills: int = 0
    mixed: int = 0
    different: int = 0
    left: int = 0
    cache_left: int = 0
    failed: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--random", type=int, default=100, metavar="N", help="Kills at random instants.")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="Only each Nth step, for a quick look.")
    parser.add_argument("--minutes", type=float, default=1.0, help="How long eight processes share a cache.")
    parser.add_argument("--first-run", action="store_true", help="Write only the last paragraph anew.")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        os.chdir(place)
        os.environ["TRANSFERSCOPE_HOME"] = str(Path(place, "home"))
        make()
        if options.first_run:
            first_run.say_again(RESULTS, Path(place), VERBS["rank"])
        else:
            RESULTS.write_text(report(Path(place), options.random, options.every, options.minutes), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def load() -> None:
    """Import what the verbs import, so that each process that is killed need not; train in a few steps."""
    from transferscope.protocols import scratch

    scratch.MIN_STEPS = 0
    for arguments in VERBS.values():
        assert command(arguments)() == 0
    shutil.rmtree("out")


def make() -> None:
    """Make a target of three classes of noise, and a zoo of two small networks."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, name in enumerate(("blue", "green", "red")):
        Path("data", name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 128, (12, 12, 3), dtype=np.uint8)
            pixels[..., 2 - number] += 100
            Image.fromarray(pixels).save(Path("data", name, f"{i:02}.png"))
    Path("nets.py").write_text(
        "from transferscope.networks import CompactResNet\n"
        "def build(width):\n    return CompactResNet(3, width=width)\n"
    )
    Path("beside").mkdir()
    Path("beside", "diary.txt").write_text("nobody's business")
    entries = [
        {"name": name, "loader": "python", "factory": "nets.py:build", "kwargs": {"width": width},
         "transform": {"size": 12}} for name, width in (("one", 4), ("two", 6))
    ]  # fmt: skip
    Path("zoo.yaml").write_text(json.dumps({"version": 1, "sources": entries}))


def report(place: Path, n_random: int, every: int, minutes: float) -> str:
    load()
    keep_pictures()
    rows, touched, started = [], set(), time.monotonic()
    rng, each = random.Random(0), "every" if every == 1 else f"each {every}th"
    for verb in VERBS:
        outcome = Trial(place, verb)
        touched |= outcome.touched
        rows.append((verb, f"before {each} step", outcome.at_steps("before", every)))
        rows.append((verb, f"inside {each} write, after {BYTES} bytes", outcome.at_steps("inside", every)))
        rows.append((verb, "at random instants", outcome.at_random(-(-n_random // len(VERBS)), rng)))
    runs, unlike = together(place, minutes)
    lines = [
        "# Kills",
        "",
        "`rank`, `compare` and `measure` are killed (SIGKILL) where it hurts: before every step on the disk (making a "
        "folder, opening a file to write, renaming, removing), inside every write of a file, and at random instants. "
        "The output folder holds the result of an earlier run with another seed. *Mixed*: after the kill it held files "
        "of two runs. *Different*: files of the next run were not byte-equal to those of a run that nobody killed (of "
        "`measure`: but for times and energy). *Left*: after it there were files that such a run does not leave, in "
        "the output folder or, in the last column, in the cache, where temporary files go away when they are old.",
        "",
        "| verb | killed | kills | mixed | different | left | left in the cache |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for verb, kind, tally in rows:
        lines.append(
            f"| `{verb}` | {kind} | {tally.kills} | {tally.mixed} | {tally.different} | {tally.left} "
            f"| {tally.cache_left} |"
        )
    total = sum(tally.kills for *_, tally in rows)
    failed = sorted({text for *_, tally in rows for text in tally.failed})
    verdict = f"Next runs that failed: {'; '.join(failed)}." if failed else "Every next run succeeded."
    lines += [
        "",
        f"{total} kills. {verdict}",
        "",
        f"Eight processes shared an empty cache for {minutes:g} minute(s): {runs} runs of `rank`, of which {unlike} "
        "gave another ranking.json than a run alone.",
        "",
        "Files that were opened to be written, made, renamed or removed outside the output and the cache folder: "
        + (", ".join(f"`{path}`" for path in sorted(touched)) or "none")
        + ".",
        "",
        f"Python {sys.version.split()[0]}, {time.monotonic() - started:.0f} s.",
        "",
        first_run.said(place, VERBS["rank"]),
    ]
    return "\n".join(lines) + "\n"


def keep_pictures() -> None:
    """Draw each result once: the same result has the same pictures."""
    from transferscope.results import saving

    draw, folder = saving.views, Path("drawn")
    folder.mkdir()

    def views(result: Any) -> Any:
        text = result.to_json() if type(result).__name__ != "Measurement" else json.dumps(timeless(result.to_dict()))
        path = folder / hashlib.sha256(text.encode()).hexdigest()
        if path.exists():
            return pickle.loads(path.read_bytes())
        drawn = draw(result)
        if not _watched:
            path.write_bytes(pickle.dumps(drawn))
        return drawn

    saving.views = views


_watched: list[bool] = []


def forked(work: Callable[[], Any], before: Callable[[], None] | None = None) -> int:
    """Do work in a process of its own."""
    child = os.fork()
    if not child:
        code = 98
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            if before is not None:
                before()
            code = work()
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(arguments: list[str]) -> Callable[[], int]:
    from transferscope.cli import run

    return lambda: run(arguments)


def writes(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """Yield the paths that an audit event is about to change."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            yield os.path.abspath(os.fsdecode(path))
    elif event in STEPS:
        paths = arguments[: 2 if event == "os.rename" else 1]
        folders = {"os.rename": arguments[2:4], "os.truncate": (-1,)}.get(event, arguments[-1:])
        for path, folder in zip(paths, folders, strict=True):
            if isinstance(path, (str, bytes, os.PathLike)):
                base = os.readlink(f"/proc/self/fd/{folder}") if folder != -1 else ""
                yield os.path.abspath(os.path.join(base, os.fsdecode(path)))


class Trial:
    """One verb, its outcome when nobody kills it, and what kills do to it."""

    def __init__(self, place: Path, verb: str) -> None:
        self.place, self.verb = place, verb
        self._ours = [str(place / name) for name in ("out", "home")]
        shutil.rmtree("out", ignore_errors=True)
        shutil.rmtree("home", ignore_errors=True)
        assert ended(forked(command(EARLIER[verb]))) == 0, Path("stderr").read_text()
        self._earlier = files(Path("out"))
        shutil.rmtree("earlier", ignore_errors=True)
        shutil.copytree("out", "earlier")
        self._reset()
        assert ended(forked(command(VERBS[verb]), lambda: self._record(Path("steps")))) == 0, Path("stderr").read_text()
        self._wanted, self._cache = files(Path("out")), {path.name for path in Path("home").rglob("*")}
        steps = [json.loads(line) for line in Path("steps").read_text().splitlines()]
        ours = [step for step in steps if all(path.startswith(tuple(self._ours)) for path in step[1])]
        self._steps = {"before": len(ours), "inside": sum(event == "open" for event, _ in ours)}
        others = {path for step in steps for path in step[1] if not path.startswith(tuple(self._ours))}
        drawn = str(place / "drawn")
        self.touched = {path for path in others if not path.startswith(drawn)} - {"/dev/null"}
        self._reset()
        start = time.monotonic()
        assert ended(forked(command(VERBS[verb]))) == 0  # with pictures that are drawn
        self._seconds = time.monotonic() - start

    def _reset(self) -> None:
        for name in ("out", "home"):
            shutil.rmtree(name, ignore_errors=True)
        shutil.copytree("earlier", "out")

    def _record(self, path: Path) -> None:
        log = path.open("w", buffering=1)
        own = [False]

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if not own[0] and (event == "open" or event in STEPS):
                own[0] = True
                if changed := list(writes(event, arguments)):
                    log.write(json.dumps([event, changed]) + "\n")
                own[0] = False

        sys.addaudithook(note)

    def at_steps(self, where: str, every: int) -> Tally:
        """Kill before, or inside the write that follows, each step in turn."""
        tally = Tally()
        for number in range(0, self._steps[where], every):
            self._reset()
            self._judge(ended(forked(command(VERBS[self.verb]), lambda: self._kill(where, number))), tally)  # noqa: B023
        return tally

    def _kill(self, where: str, number: int) -> None:
        _watched.append(True)
        seen = [0]
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            if event != "open" and (where == "inside" or event not in STEPS):
                return
            paths = list(writes(event, arguments))
            if not paths or not all(path.startswith(tuple(self._ours)) for path in paths):
                return
            if seen[0] == number:
                if where == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                there = os.path.getsize(paths[0]) if os.path.isfile(paths[0]) else 0
                resource.setrlimit(resource.RLIMIT_FSIZE, (there + BYTES, resource.RLIM_INFINITY))
            seen[0] += 1

        sys.addaudithook(count)

    def at_random(self, kills: int, rng: random.Random) -> Tally:
        """Kill after a random time."""
        tally = Tally()
        while tally.kills < kills:  # some end before
            self._reset()
            child = forked(command(VERBS[self.verb]), lambda: _watched.append(True))
            time.sleep(rng.uniform(0, self._seconds))
            os.kill(child, signal.SIGKILL)
            self._judge(ended(child), tally)
        return tally

    def _judge(self, code: int, tally: Tally) -> None:
        if code not in KILLED:
            return
        tally.kills += 1
        tally.mixed += self._is_mixed(files(Path("out")))
        print(f"{self.verb}: {tally.kills}", end="\r", file=sys.stderr, flush=True)
        if (again := ended(forked(command(VERBS[self.verb]), lambda: _watched.append(True)))) != 0:
            tally.failed.append(f"`{self.verb}` with {again}: {Path('stderr').read_text()[-200:]}")
        after = files(Path("out"))
        tally.different += any(after.get(name) != content for name, content in self._wanted.items())
        tally.left += bool(set(after) - set(self._wanted))
        tally.cache_left += bool({path.name for path in Path("home").rglob("*")} - self._cache)

    def _is_mixed(self, seen: dict[str, bytes]) -> bool:
        """Whether files that differ between the runs are there of both."""
        telling = [name for name in seen if self._earlier.get(name) != self._wanted.get(name) and name in self._wanted]
        telling = [name for name in telling if name in self._earlier and not name.startswith((".", "runs", "phases"))]
        telling = [name for name in telling if name != "measure.json"]  # of the table that grows
        old = {seen[name] == self._earlier[name] for name in telling}
        gone = any(name in seen for name in set(self._earlier) - set(self._wanted))
        return len(old) > 1 or (gone and old == {False})


def files(folder: Path) -> dict[str, bytes]:
    """Return what is in an output folder, without times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            found[name] = path.read_bytes() if name.startswith(".transferscope") else steady(path)
    return found


def steady(path: Path) -> bytes:
    """Return a file without what differs between two runs that give the same."""
    content = path.read_bytes()
    if path.name == ".measure.lock":
        return b""
    if path.name == "measurement.json":
        return json.dumps(timeless(json.loads(content))).encode()
    if path.parent.joinpath("runs.csv").exists() and path.suffix in (".csv", ".nc", ".png"):
        import pandas as pd

        if path.suffix != ".csv":
            return b"holds times"
        try:
            table = pd.read_csv(path)
        except ValueError:  # a row that a kill has torn
            return content
        if path.name in ("runs.csv", "phases.csv"):
            table = table.sort_values(list(table.columns[:7])).drop_duplicates(ignore_index=True)
        return table.drop(columns=[name for name in table if any(word in name for word in TIMES)]).to_csv().encode()
    return content


def timeless(value: Any) -> Any:
    """Return JSON-like content without times, energy and what they depend on."""
    if isinstance(value, dict):
        return {name: timeless(item) for name, item in value.items() if not any(word in name for word in TIMES)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def together(place: Path, minutes: float) -> tuple[int, int]:
    """Let eight processes run `rank` on one cache that begins empty; return runs, and those with another answer."""
    shutil.rmtree("home", ignore_errors=True)
    end = time.monotonic() + 60 * minutes

    def work(number: int) -> Callable[[], int]:
        def loop() -> int:
            done = 0
            arguments = [f"shared-{number}" if word == "out" else word for word in VERBS["rank"]]
            while time.monotonic() < end:
                assert command(arguments)() == 0
                shutil.copy(f"shared-{number}/ranking.json", f"answer-{number}-{done}.json")
                done += 1
            return 0

        return loop

    children = [forked(work(number), lambda: _watched.append(True)) for number in range(8)]
    codes = [ended(child) for child in children]
    shutil.rmtree("home")
    assert ended(forked(command(VERBS["rank"]), lambda: _watched.append(True))) == 0
    wanted = (place / "out" / "ranking.json").read_bytes()
    answers = [path.read_bytes() for path in place.glob("answer-*.json")]
    return len(answers), sum(answer != wanted for answer in answers) + sum(code != 0 for code in codes)
