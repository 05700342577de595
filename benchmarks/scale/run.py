"""`python benchmarks/scale/run.py checks|stress|times|zoo`: engines against the real thing.

- ``checks``: `rank`, `measure` and `compare` on every engine that is here, for 1, 2, 3 and 7 workers, with a worker
  that is killed in the middle, and as an array job of SLURM where `slurm_here.sh start` has been run; each answer has
  to be that of one process byte for byte. No number in it depends on how busy the machine is.
- ``stress``: eight processes that write and read one cache for `--seconds`, some of them killed, see `stress.py`.
- ``times``: what a unit costs on each engine, and two processes against one. For a quiet machine.
- ``zoo``: a zoo of `--sources` times a million images in `--shards` on `--workers` of Dask, simulated by units that
  sleep and return sums of real size. For a quiet machine.

Each writes its part of results/scale.md; what it found is kept in results/scale.json. Each of the checks is kept as it
is found, and asked again only where the answer was not the same, or with ``--again``: after a change of the package.
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE.parent), os.environ.get("PYTHONPATH", "")])

from speed.naive import WORKLOADS, reference_checkpoint, write_zoo  # noqa: E402

from scale.stress import WRONG, stress  # noqa: E402
from scale.work import Nothing, Shards  # noqa: E402
from transferscope.runtime.engines.crew import crew  # noqa: E402
from transferscope.runtime.engines.naming import parse_place  # noqa: E402

RESULTS = HERE.parent / "results" / "scale.md"
KEPT = RESULTS.with_suffix(".json")
WORKERS = (1, 2, 3, 7)
KILLED_AFTER_S = 3.0
"""Of a core, where a worker holds no lease that tells when it is at work."""
ASKED = ["--target", "demo/target", "--sources", "demo/zoo.yaml", "--trust-code", "--device", "cpu", "-q"]
VERBS = {
    "rank": ["rank", *ASKED, "--samples", "100", "--batch-size", "4", "--mode", "quick", "--format", "json"],
    "compare": [
        "compare", "letter-groups", "gratings", *ASKED, "--samples", "200", "--batch-size", "16", "--format", "json",
    ],
    "measure": [
        "measure", *ASKED, "--protocols", "truncate,finetune", "--depths", "3,-1", "--samples-per-class", "2",
        "--seeds", "2", "--epochs", "2", "--min-steps", "0",
    ],
}  # fmt: skip
SAME = ("source", "protocol", "depth", "layer", "samples_per_class", "seed", "accuracy", "flops", "trials", "status")


SAME_BYTES = "byte for byte"


class AskedError(Exception):
    """A command that was asked did not answer."""


def has(package: str) -> bool:
    """Whether a package is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def has_slurm() -> bool:
    """Whether a SLURM is running here."""
    return (
        shutil.which("sinfo") is not None
        and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    )


def answer(folder: Path, name: str, output: Path, printed: str) -> str:
    """Return a digest of an answer, of a table of runs without what depends on the clock."""
    if name == "measure":
        import pandas as pd

        table = pd.read_csv(folder / output / "runs.csv").sort_values(list(SAME[:6]), ignore_index=True)
        printed = table[list(SAME)].to_csv()
    return hashlib.sha256(printed.encode()).hexdigest()[:16]


def start(folder: Path, name: str, engine: str, *more: str) -> tuple[subprocess.Popen, str]:
    """Start a verb with a cache of its own."""
    label = re.sub(r"\W+", "-", f"{name}-{engine}-{'-'.join(more)}")
    words = [sys.executable, "-m", "transferscope", *VERBS[name], "-o", f"out-{label}", *more]
    words += ["--on", engine] if engine != "one process" else []
    env = {**os.environ, "TRANSFERSCOPE_HOME": str(folder / f"home-{label}"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, text=True), f"out-{label}"


def ask(folder: Path, name: str, engine: str) -> str:
    """Return the digest of what a verb answers on an engine."""
    process, output = start(folder, name, engine)
    printed, _ = process.communicate()
    if process.returncode:
        raise AskedError(f"it ended with status {process.returncode}")
    return answer(folder, name, Path(output), printed)


def holders(home: Path) -> set[str]:
    """Return the processes that hold a lease in a cache: they are at work on something."""
    found = set()
    for path in (home / "leases").glob("*"):
        with contextlib.suppress(OSError):  # it has ended
            found.add(path.read_text().rpartition(" ")[2])
    return found


def ask_and_kill(folder: Path, name: str, engine: str) -> str:
    """Do the same, and kill a worker when it is at work."""
    import psutil

    process, output = start(folder, name, engine, "--seed", "0")
    killed, home = threading.Event(), folder / output.replace("out-", "home-", 1)

    def kill() -> None:
        while process.poll() is None and not killed.is_set():
            for child in psutil.Process(process.pid).children(recursive=True):
                try:
                    busy = str(child.pid) in holders(home) or child.cpu_times().user > KILLED_AFTER_S
                    if busy and "resource_tracker" not in " ".join(child.cmdline()) and not child.children():
                        child.send_signal(signal.SIGKILL)
                        killed.set()
                        return
                except psutil.Error:
                    continue
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    printed, _ = process.communicate()
    thread.join()
    if process.returncode or not killed.is_set():
        raise AskedError(f"it ended with status {process.returncode}" if killed.is_set() else "nobody was killed")
    return answer(folder, name, Path(output), printed)


def ask_array(folder: Path, name: str) -> str:
    """Return what both tasks of an array job answer that shares one folder."""
    words = [*VERBS[name], "-o", f"out-array-{name}"]
    script = subprocess.run(
        [sys.executable, "-m", "transferscope", "slurm", "--tasks", "2", "--cpus", "1", "--mem", "4G", *words],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    script = script.replace("transferscope-%A_%a.log", f"array-{name}-%a.log")
    env = {**os.environ, "TRANSFERSCOPE_HOME": str(folder / f"home-array-{name}")}
    done = subprocess.run(["sbatch", "--wait"], input=script, text=True, cwd=folder, env=env, capture_output=True)
    logs = [log.read_text() for log in sorted(folder.glob(f"array-{name}-*.log"))]
    if done.returncode or len(logs) != 2:
        raise AskedError(f"sbatch ended with status {done.returncode}: {done.stderr} {logs}")
    found = sorted({answer(folder, name, Path(f"out-array-{name}"), log) for log in logs})
    return " and ".join(found)


def checks(names: list[str], chosen: str, kept: list[dict[str, str]], keep: Callable[[list], None]) -> list[dict]:
    """Ask every verb on every engine whose name a pattern finds, but for what is kept; return a row for each.

    `keep` is called with all rows whenever there is another one.
    """
    folder = Path(tempfile.mkdtemp(prefix="transferscope-scale-"))
    subprocess.run([sys.executable, "-m", "transferscope", "demo", "-o", "demo", "-q"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    dask, slurm = has("distributed"), has("submitit") and has_slurm()
    engines = [f"processes:{workers}" for workers in WORKERS]
    engines += [f"dask:local:{workers}" for workers in WORKERS] if dask else []
    engines += ["slurm:cluster=local"] if has("submitit") else []
    engines += ["slurm:cpus=1,mem=3GB,time=20"] if slurm else []
    rows = [row for row in kept if row["same"] == SAME_BYTES]
    try:
        for name in names:
            asked = {engine: partial(ask, folder, name, engine) for engine in engines}
            for engine in ["processes:2", *(["dask:local:4"] if dask else [])]:
                asked[f"{engine}, one killed"] = partial(ask_and_kill, folder, name, engine)
            if slurm and name != "compare":
                asked["array job of SLURM, two tasks"] = partial(ask_array, folder, name)
            known = {row["engine"] for row in rows if row["verb"] == name}
            missing = [engine for engine in asked if re.search(chosen, engine) and engine not in known]
            expected = ask(folder, name, "one process") if missing else ""
            for engine in missing:
                try:
                    found = asked[engine]()
                except AskedError as error:
                    found = str(error)
                same = SAME_BYTES if found == expected else f"NO: {found} for {expected}"
                rows.append({"verb": name, "engine": engine, "same": same})
                rows.sort(key=lambda row: (row["verb"], row["engine"]))
                print(f"{name:8} {engine:45} {same}", file=sys.stderr, flush=True)
                keep(rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def stressed(seconds: float) -> list[dict[str, object]]:
    """Return what became of one cache under eight processes."""
    with tempfile.TemporaryDirectory(prefix="transferscope-scale-") as folder:
        found = stress(Path(folder), seconds)
    return [{"what": what, "value": value} for what, value in {"seconds": f"{seconds:g}", **found}.items()]


def with_real_networks(folder: Path, real: Path) -> str:
    """Add workload (a) of speed.py, whose reference is given, to the verbs that can be started; return its name."""
    workload, name = WORKLOADS["a"], "rank of six real networks, reference given"
    with zipfile.ZipFile(real / "data" / f"{workload.data}.zip") as archive:
        archive.extractall(folder)
    reference = reference_checkpoint(folder / workload.data, folder / "reference.safetensors")
    VERBS[name] = [
        "rank", "--target", workload.data, "--sources", str(write_zoo(folder, real / "zoo", workload)), "--trust-code",
        "--device", "cpu", "-q", "--samples", str(workload.images), "--reference", str(reference), "--format", "json",
    ]  # fmt: skip
    return name


def times(units: int) -> list[dict[str, object]]:
    """Return what a unit costs on each engine, and two processes against one."""
    os.environ["TRANSFERSCOPE_HOME"] = tempfile.mkdtemp()
    rows: list[dict[str, object]] = []
    engines = ["processes:2", *(["dask:local:2"] if has("distributed") else [])]
    for engine in engines:
        with crew(parse_place(engine), Nothing()) as workers:
            for _ in workers.carry_out([[("first", (-1 - i,))] for i in range(8)]):
                pass  # until all workers are there
            began = time.perf_counter()
            for _ in workers.carry_out([[(str(i), (i,))] for i in range(units)]):
                pass
            spent = time.perf_counter() - began
        rows.append({"what": f"{engine}: a unit that does nothing, ms", "value": round(1000 * spent / units, 3)})
    folder = Path(tempfile.mkdtemp(prefix="transferscope-scale-"))
    subprocess.run([sys.executable, "-m", "transferscope", "demo", "-o", "demo", "-q"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    names = ["rank", "measure"]
    if real := os.environ.get("TRANSFERSCOPE_REAL"):
        names.append(with_real_networks(folder, Path(real)))
    for name in names:
        spent = {}
        for workers in (1, 2):
            began = time.perf_counter()
            ask(folder, name, f"processes:{workers}")
            spent[workers] = time.perf_counter() - began
            rows.append(
                {"what": f"{name} on processes:{workers}, s, start included", "value": round(spent[workers], 1)}
            )
        rows.append({"what": f"{name}: two processes against one", "value": f"{spent[1] / spent[2]:.2f} ×"})
    shutil.rmtree(folder, ignore_errors=True)
    return rows


CALM = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "30s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "5s",
}
"""Dask's workers look at themselves so often that 64 of them, which do nothing else, take two cores."""


def zoo(sources: int, shards: int, workers: int, seconds: float) -> list[dict[str, object]]:
    """Simulate a large zoo; return what it asks of the process that asks."""
    os.environ |= CALM | {"TRANSFERSCOPE_HOME": tempfile.mkdtemp()}
    sums: dict[int, object] = {}
    merging = 0.0
    with crew(parse_place(f"dask:local:{workers}"), Shards(seconds)) as hands:
        before, began = time.process_time(), time.perf_counter()
        chains = ([(f"{source}/{shard}", (source, shard))] for source in range(sources) for shard in range(shards))
        for (source, _), outcome in hands.carry_out(chains):
            merged = time.perf_counter()
            sums[source] = outcome.value if source not in sums else sums[source] + outcome.value
            merging += time.perf_counter() - merged
        wall, cpu = time.perf_counter() - began, time.process_time() - before
    units, most = sources * shards, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ten_thousand = cpu / units * 1e4 * shards / 3600
    found = {
        "sources × shards": f"{sources} × {shards}",
        "workers, and seconds of a unit": f"{workers}, {seconds:g}",
        "units a second, and at most if nothing else took time": f"{units / wall:.0f}, {workers / seconds:.0f}",
        "scheduler and head: share of one core": f"{cpu / wall:.2f}",
        "scheduler and head: ms of a core for a unit": f"{1000 * cpu / units:.2f}",
        "scheduler and head: GB of memory at most": f"{most:.2f}",
        "merging all sums, s": f"{merging:.1f}",
        "ten thousand sources × as many shards: hours of a core of the head": f"{ten_thousand:.1f}",
    }
    return [{"what": what, "value": value} for what, value in found.items()]


def machine() -> str:
    """Return what numbers were found on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "distributed", "submitit") if has(name))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}"


TEXTS = {
    "checks": ("The same answer everywhere", "Each answer against that of one process; of tables of runs the columns "
               "that depend on no clock. A killed worker got SIGKILL while it held a lease, or, where it takes "
               f"none, after {KILLED_AFTER_S:g} s of a core."),
    "stress": ("One cache under eight writers", "Processes that look for, compute, put and read entries of up to 1 MB, "
               "by leases; one after the other gets SIGKILL, and another one takes its place."),
    "times": ("What a unit costs", "Two processes against one, of one thread each: the start of torch in "
              "them is part of it, as is what only one can do, the reference of `rank` first of all."),
    "zoo": ("A large zoo, simulated", "Units sleep and return the sums of linear CKA between 50 layers and 50; Dask's "
            "scheduler runs in the process that asks. Its workers look at themselves less often than Dask has them."),
}  # fmt: skip


def kept_rows(part: str) -> list[dict[str, str]]:
    """Return what a part has found before, on a machine and with packages like these."""
    found = json.loads(KEPT.read_text()).get(part, {}) if KEPT.exists() else {}
    return found["rows"] if found.get("machine") == machine() else []


def write(part: str, rows: list[dict[str, object]]) -> None:
    """Keep what was found, and write the page."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[part] = {"machine": machine(), "rows": rows}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    lines = ["# Scale", "", "`python benchmarks/scale/run.py checks|stress|times|zoo`."]
    for each, (title, text) in TEXTS.items():
        if each in kept:
            found = kept[each]["rows"]
            lines += ["", f"## {title}", "", f"{text} {kept[each]['machine']}.", ""]
            lines += [f"| {' | '.join(found[0])} |", "|" + "---|" * len(found[0])]
            lines += [f"| {' | '.join(map(str, row.values()))} |" for row in found]
    RESULTS.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(TEXTS))
    parser.add_argument("--verbs", default="rank,compare,measure", help="of the checks")
    parser.add_argument("--engines", default="", metavar="PATTERN", help="of the checks, a regular expression")
    parser.add_argument("--again", action="store_true", help="checks that are in results/scale.json already, too")
    parser.add_argument("--units", type=int, default=2000, help="that do nothing")
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, help="that a simulated unit sleeps, or stress goes on")
    parser.add_argument("--dry-run", action="store_true", help="print what was found, and write nothing")
    asked = parser.parse_args()
    logging.getLogger("submitit").setLevel(logging.ERROR)
    keep = (lambda _rows: None) if asked.dry_run else partial(write, "checks")
    verbs = asked.verbs.split(",")
    kept = [] if asked.dry_run else kept_rows("checks")
    if asked.again:
        kept = [row for row in kept if row["verb"] not in verbs or not re.search(asked.engines, row["engine"])]
    rows: list = (
        checks(verbs, asked.engines, kept, keep) if asked.part == "checks"
        else stressed(asked.seconds or 60.0) if asked.part == "stress"
        else times(asked.units) if asked.part == "times"
        else zoo(asked.sources, asked.shards, asked.workers, asked.seconds or 1.0)
    )  # fmt: skip
    if asked.dry_run:
        print("\n".join(" ".join(map(str, row.values())) for row in rows))
    else:
        write(asked.part, rows)
    wrong = any(row["value"] for row in rows if row.get("what") in WRONG)
    if wrong or any("NO" in str(row.get("same")) for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
