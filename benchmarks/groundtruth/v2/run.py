"""Ground truth v2: make it, go on with it, check it; see README.md beside this file.

    TRANSFERSCOPE_REAL=... python benchmarks/groundtruth/v2/run.py [--hours H] [--device cuda] [--only STREAM]
    python benchmarks/groundtruth/v2/run.py --status
    python benchmarks/groundtruth/v2/run.py --check

The first runs what is missing; stop it whenever you like: what was recorded stays, and the same command goes on.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))
from groundtruth.sources import real_data
from groundtruth.v2 import checks, frozen, hours, seen, status, trained
from transferscope.errors import InputError
from transferscope.verbs.measure.lock import lock

SHARES = {"trained": 0.6, "frozen": 0.2, "evidence": 0.1, "product": 0.1}
"""Of the time, for the streams that have something left."""
PIECE_HOURS = 0.25
"""What the longest piece of work takes on an idle machine: the next one is of the stream that stays behind with it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--status", action="store_true", help="print hours spent and what is missing")
    parser.add_argument("--check", action="store_true", help="check the tables; exit 1 if a check fails")
    parser.add_argument("--hours", type=float, default=1e6, help="begin nothing after this time")
    parser.add_argument("--device", default="cpu", help="of the trained stream: cpu or cuda")
    parser.add_argument("--only", choices=SHARES, help="one of the streams")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    chosen = parser.parse_args()
    if chosen.status:
        print(status.text())
        return
    if chosen.check:
        found = list(checks.checks())
        for check in found:
            print(f"{ {None: '?', True: 'ok', False: 'FAILED'}[check.passed]:7}{check.what}: {check.found}")
        sys.exit(any(check.passed is False for check in found))
    torch.set_num_threads(chosen.threads)
    run(real_data(), chosen.device, chosen.only, time.monotonic() + 3600 * chosen.hours)


def run(real: Path, device: str, only: str | None, end: float) -> None:
    """Run what is missing of the streams by turns, until the time `end` (of `time.monotonic`)."""
    trained.FOLDER.mkdir(exist_ok=True)
    try:
        held, _ = lock(trained.FOLDER)
    except InputError as error:
        sys.exit(str(error))
    streams: dict[str, Iterator[str]] = {
        "trained": trained.work(real, device), "frozen": frozen.work(real), "evidence": seen.work(real),
        "product": trained.work_of_the_product(real, device),
    }  # fmt: skip
    if only:
        streams = {only: streams[only]}
    while streams and time.monotonic() < end:
        spent = hours.spent()
        name = min(streams, key=lambda stream: (spent.get(stream, 0.0) + PIECE_HOURS) / SHARES[stream])
        started = time.monotonic()
        try:
            done = next(streams[name], None)
        except Exception:  # what stops one stream must not stop the others
            traceback.print_exc()
            done = None
        if done is None:
            del streams[name]
            continue
        seconds = time.monotonic() - started
        hours.note(name, device if name == "trained" else "cpu", seconds)
        print(f"{time.strftime('%H:%M:%S')} {name}, {seconds:.0f} s: {done}", flush=True)
    os.close(held)


if __name__ == "__main__":
    main()
