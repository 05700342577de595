"""Eight processes on one cache, some of them killed, and whether an entry is torn, lost or computed twice.

    python benchmarks/scale/stress.py FOLDER [--seconds 60]

Each draws one of the first entries that are not there yet, takes its lease, looks, computes and puts it; between, it
reads any earlier one. Whom SIGKILL ends another one follows. Prints what was seen, as JSON. Needs fork.
"""

import argparse
import json
import logging
import mmap
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from transferscope.runtime.store import Store

WRITERS = 8
KILL_EVERY_S = 0.2
KIND = "features"
WRONG = ("torn", "lost", "computed twice", "processes that failed")
"""What must not be seen at all."""
_MOST = 2**16
_AHEAD = 6
"""Of so many entries that are not there yet each process draws one: often another one is at work on it."""


class Writers:
    """Processes that work on one cache; what they do stands in a journal.

    Parameters
    ----------
    folder : pathlib.Path
        Of the cache and the journal.
    seconds : float
        How long they work.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._root, self._journal = folder / "home", folder / "journal"
        self._put = mmap.mmap(-1, _MOST)  # shared by all: which entries were put
        self._end = time.monotonic() + seconds
        self._killed: set[int] = set()

    def run(self) -> dict[str, int]:
        """Let them work, kill one after the other; return what was seen."""
        rng = random.Random(0)
        children = [self._start() for _ in range(WRITERS)]
        while time.monotonic() < self._end - KILL_EVERY_S:
            time.sleep(rng.uniform(0, 2 * KILL_EVERY_S))
            victim = children.pop(rng.randrange(WRITERS))
            os.kill(victim, signal.SIGKILL)
            if os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL:
                self._killed.add(victim)
            children.append(self._start())
        failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
        return {**self._seen(), "processes that failed": failed}

    def _start(self) -> int:
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            self._work(random.Random(os.getpid()))
            status = 0
        finally:
            os._exit(status)

    def _work(self, rng: random.Random) -> None:
        descriptor = os.open(self._journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        store, first = Store(self._root), 0

        def note(event: str, number: int) -> None:
            os.write(descriptor, f"{event} {number} {os.getpid()}\n".encode())

        _listen(lambda: note("torn", -1))
        while time.monotonic() < self._end:
            while self._put[first]:
                first += 1
            number, wait = first + rng.randrange(_AHEAD), rng.random() < 0.5
            with store.lease(KIND, _key(number), wait=wait) as told:
                if wait or told:
                    self._once(store, number, note)
            if first:
                self._look(store, rng.randrange(first), note)

    def _once(self, store: Store, number: int, note: Any) -> None:
        """Compute an entry unless it is there."""
        if self._look(store, number, note):
            return
        note("begun", number)
        store.put(KIND, _key(number), {"a": _content(number)}, {"number": number})
        self._put[number] = 1
        note("put", number)

    def _look(self, store: Store, number: int, note: Any) -> bool:
        """Whether an entry is there; note where it should be and is not, or is another one."""
        known = self._put[number]
        found = store.get(KIND, _key(number))
        if found is None:
            if known:
                note("lost", number)
            return False
        if found[1] != {"number": number} or not np.array_equal(found[0]["a"], _content(number)):
            note("torn", number)
        return True

    def _seen(self) -> dict[str, int]:
        events = [line.split() for line in self._journal.read_text(encoding="ascii").splitlines()]
        told = Counter(event for event, *_ in events)
        put = {(number, process) for event, number, process in events if event == "put"}
        begun: Counter[str] = Counter()
        taken_over = 0
        for event, number, process in events:
            if event == "begun":
                cut_off = int(process) in self._killed and (number, process) not in put
                taken_over += cut_off
                begun[number] += not cut_off
        store, damaged = Store(self._root), []
        _listen(lambda: damaged.append(1))
        gone = sum(store.get(KIND, _key(int(number))) is None for number, _ in put)
        return {
            "entries": len({number for number, _ in put}),
            "processes killed": len(self._killed),
            "killed while they computed one": taken_over,
            "torn": told["torn"] + len(damaged),
            "lost": told["lost"] + gone,
            "computed twice": sum(times - 1 for times in begun.values() if times > 1),
        }


def _key(number: int) -> str:
    return f"{number:064x}"[::-1]


def _content(number: int) -> np.ndarray:
    """Return what an entry holds: a few bytes or up to 1 MB."""
    return np.full(4 ** (number % 10), number, np.float32)


def _listen(heard: Any) -> None:
    """Call `heard` whenever an entry is said to be unusable."""
    handler = logging.Handler()
    handler.emit = lambda _record: heard()  # type: ignore[method-assign]
    logger = logging.getLogger("transferscope")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.WARNING)


def stress(folder: Path, seconds: float) -> dict[str, int]:
    """Let eight processes write and read one cache for so long; return what was seen."""
    return Writers(folder, seconds).run()


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    print(json.dumps(stress(asked.folder, asked.seconds)))


if __name__ == "__main__":
    main()
