"""Two networks compared as units of an engine: shards of the images, whose sums add up in their order."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from transferscope.data.batches import FEWEST
from transferscope.networks.zoo import COMPACT, OWN, SCRATCH
from transferscope.results.summary import Reference
from transferscope.runtime.engines.crew import Chain, crew, warn_again
from transferscope.runtime.engines.naming import Place
from transferscope.runtime.regular import is_regular
from transferscope.verbs.bench import Bench, PackedBench
from transferscope.verbs.compare.networks import look
from transferscope.verbs.compare.options import Options
from transferscope.verbs.compare.pair import Pair, blamed_on, load_pair, make_reference
from transferscope.verbs.compare.request import CompareRequest
from transferscope.verbs.compare.seen import Seen
from transferscope.verbs.running.reference_elsewhere import have_reference_made

_BATCHES = 4
"""In a shard at least."""
_IMAGES = 2048
"""In a shard where nobody knows how many workers there are."""


@dataclass(frozen=True)
class Comparing:
    """The work of a comparison: what its units share."""

    bench: PackedBench
    request: CompareRequest
    trained: Any = None
    """The reference as the cache keeps it, for workers that have another one; None where they share it."""

    def perform(self, *arguments: Any, shared: bool) -> Any:
        """Return the facts of the reference, or what was seen of a shard of the images, with the options of it."""
        if self.trained is not None and not shared:
            self._bench.store.put(*self.trained)
        if arguments[0] == "reference":
            made = make_reference(self.request, self._bench)
            return made.summary(), None if shared else made.entry
        _, start, stop = arguments
        images, pair, what = self._bench.probe.subset(np.arange(start, stop)), self._pair, self.request
        with blamed_on(f"{what.x} with {what.y}", what.batch_size):
            seen = look(pair.x.module, pair.y.module, images, pair.options, whole=self._bench.probe)
        return replace(seen, sums=[each.on_host() for each in seen.sums]), pair.options

    @cached_property
    def _bench(self) -> Bench:
        return self.bench.unpack()

    @cached_property
    def _pair(self) -> Pair:
        return load_pair(self.request, self._bench)


def compare_elsewhere(
    place: Place, request: CompareRequest, bench: Bench
) -> tuple[dict[str, xr.DataArray], Reference | None]:
    """Return the similarities by measure, and the scratch network where it is one of the two.

    Raises
    ------
    TransferscopeError
        The engine cannot be reached, or no worker of it can carry out units; or as in one process.
    """
    kind = request.reference
    given = kind not in (COMPACT, OWN) and is_regular(kind)
    alone = replace(
        request, target="", zoo="", on=None, executor=None, reference=str(Path(kind).absolute()) if given else kind
    )
    work, reference = Comparing(bench.packed(), alone), None
    with crew(place, work, spread=bench.spread) as workers:
        if SCRATCH in (request.x, request.y):
            reference, _ = have_reference_made(workers, work)
        bounds = _shards(bench, workers.size, request.options())
        chains: list[Chain] = [
            [(f"{request.x} with {request.y}, images {start} to {stop}", ("images", start, stop))]
            for start, stop in bounds
        ]
        found: dict[int, tuple[Seen, Options]] = {}
        noted: dict[int, tuple[str, ...]] = {}
        with bench.reporter.bar("units") as report:
            report(0, len(bounds))
            for arguments, outcome in workers.carry_out(chains):
                outcome.check()
                found[arguments[1]], noted[arguments[1]] = outcome.value, outcome.warnings
                report(len(found), len(bounds))
    warn_again(dict.fromkeys(text for start in sorted(noted) for text in noted[start]))
    (first, options), *others = (found[start] for start in sorted(found))
    for each, _ in others:
        first.add(each)
    return first.results(options), reference


def _shards(bench: Bench, workers: int, options: Options) -> list[tuple[int, int]]:
    """Divide the probe into whole batches, as those of one process; not where all images are needed together."""
    images, batch = bench.probe.n_samples, options.batch_size
    if options.whole or options.permutations:
        return [(0, images)]
    each = -(-images // workers) if workers else _IMAGES
    size = batch * max(_BATCHES, -(-each // batch))
    starts = [start for start in range(0, images, size) if start == 0 or images - start >= FEWEST]
    return list(zip(starts, [*starts[1:], images], strict=True))
