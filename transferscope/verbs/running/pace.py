"""How fast a source runs on this machine, and the power that it draws meanwhile: what its features are charged by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from transferscope.activations import timing
from transferscope.activations.stages import Stage
from transferscope.networks.loading import Network, identity
from transferscope.runtime.footprint import Meter
from transferscope.runtime.power import JOULES_PER_KWH
from transferscope.runtime.store import Store, digest
from transferscope.runtime.version import __version__


@dataclass(frozen=True)
class Pace:
    """What one image costs."""

    seconds: dict[str, float]
    """By layer: until an image has come so far."""
    watts: float
    """Mean power; NaN when it is not known."""


def pace(
    network: Network, stages: Sequence[Stage], batch_size: int, *, device: torch.device, store: Store, meter: Meter
) -> Pace:
    """Time a source on batches of noise, or return what was measured before under the same conditions.

    Features come from the cache more often than not, whoever computed them and in whichever batches: so what they are
    charged by is measured apart from them.

    Parameters
    ----------
    network : Network
        The source.
    stages : sequence of Stage
        Where it can be cut.
    batch_size, device
        Images at a time, and where.
    store, meter
        Where to keep it, and what measures the power; no run of it is under way.

    Raises
    ------
    CaptureError
        As `timing.pace`.
    """
    key = digest(
        __version__, torch.__version__, device.type, torch.get_num_threads(), batch_size,
        identity(network.source, network.seed), [stage.layer for stage in stages],
    )  # fmt: skip
    if (entry := store.get("pace", key)) is not None:
        return Pace(entry[1]["seconds"], entry[1]["watts"])
    net = network.module.to(device)
    with meter.run() as run, run.phase("features"):
        seconds = timing.pace(net, stages, network.transform.shape, device=device, batch_size=batch_size)
    spent = run.footprint()
    measured = Pace(seconds, spent.kwh * JOULES_PER_KWH / spent.seconds["features"])
    store.put("pace", key, {}, {"seconds": measured.seconds, "watts": measured.watts})
    return measured
