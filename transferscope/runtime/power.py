"""What this process draws from the mains and what that emits, as CodeCarbon knows it: offline and without a word.

CodeCarbon finds the hardware and knows each country's electricity; it is imported on first use. Its tracker is never
started, so that there is no thread, file, lock or message of its own.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from transferscope.errors import InputError, near

WORLD = "world"
JOULES_PER_KWH = 3.6e6
_WATCH_S = 60.0
"""The energy counters of some CPUs start again at zero every few minutes, and must be read in between."""


@dataclass(frozen=True)
class CarbonIntensity:
    """What a kilowatt-hour of electricity emits somewhere."""

    grams: float
    """g CO2e per kWh."""
    place: str
    """Where and when, or from which source."""


def carbon_intensity(country: str) -> CarbonIntensity:
    """Look up the mean carbon intensity of a country's electricity in CodeCarbon's data.

    Parameters
    ----------
    country : str
        ISO 3166 alpha-3 code, or "world" for the world average.

    Raises
    ------
    InputError
        When CodeCarbon has no data for this country.
    """
    with _silent():
        from codecarbon.input import DataSource

        data = DataSource()
        mixes = data.get_global_energy_mix_data()
        name = str(country).lower()
        if name == WORLD:
            sources = data.get_carbon_intensity_per_source_data()
            return CarbonIntensity(sources["world_average"], f"the world average ({sources['world_average_source']})")
    code = name.upper()
    if code not in mixes:
        codes = {mix["country_name"].lower(): key for key, mix in mixes.items()}
        meant = f" (did you mean '{codes[name]}'?)" if name in codes else near(code, mixes)
        raise InputError(
            f"Expected `country` to be '{WORLD}' or the ISO 3166 alpha-3 code of a country that CodeCarbon has data "
            f"for, such as 'ESP', but got {country!r}{meant}"
        )
    return CarbonIntensity(mixes[code]["carbon_intensity"], f"{mixes[code]['country_name']} in {mixes[code]['year']}")


class PowerMeter:
    """The energy that this process has drawn since the meter was made.

    - CPU: the energy counters of the whole CPU (RAPL) where they can be read. Elsewhere CodeCarbon's estimate for one
      process: the thermal design power times the part of the machine's CPU time that this process used.
    - GPU, on CUDA: the energy counter of that one GPU.
    - Memory: CodeCarbon's estimate for all that is installed.

    What is read or estimated for the whole machine is divided evenly among the `workers`, so that several processes at
    once do not charge it several times over; other programs' part of it is charged too. CodeCarbon's settings (such as
    CODECARBON_FORCE_CPU_POWER, watts at full load, in the environment) are heeded.

    Parameters
    ----------
    device : torch.device
        Where the process works.
    workers : int
        Processes that work side by side on this machine (and this GPU), each with a meter of its own.

    Raises
    ------
    Exception
        Whatever goes wrong in CodeCarbon.
    """

    measured: bool
    """Whether the CPU, and the GPU if there is one, have counters; False: part of the energy is an estimate."""
    description: str
    """What each figure is made of, in watts where it is an estimate."""

    def __init__(self, device: torch.device, workers: int = 1) -> None:
        self._workers = workers
        self._counters: list[Any] = []
        self._watts = 0.0
        self._watts_per_cpu = 0.0
        self._kwh = 0.0
        self.measured = True
        parts: list[str] = []
        with _silent():
            for part in _hardware(device):
                parts.append(self._include(part))
            for counter in self._counters:
                counter.start()
        if workers > 1:
            parts.append(f"what belongs to the machine is divided among {workers} workers")
        self.description = "; ".join(parts)
        self._read_at, self._cpu_at = time.perf_counter(), time.process_time()

    def _include(self, part: Any) -> str:
        """Take a piece of CodeCarbon's hardware into account; return how."""
        from codecarbon.core.util import count_cpus
        from codecarbon.external.hardware import CPU, GPU
        from codecarbon.external.ram import RAM

        if isinstance(part, RAM):
            watts = part.total_power().W
            self._watts += watts / self._workers
            return f"memory estimated at {watts:.3g} W"
        if isinstance(part, CPU) and (watts := _estimated_watts(part)) is not None:
            self.measured = False
            cores = count_cpus()
            self._watts_per_cpu = watts / cores
            return (
                f"no power meter for the CPU ({part.get_model()}), estimated by CPU time at {watts:.3g} W "
                f"for all {cores} cores"
            )
        self._counters.append(part)
        return f"{'GPU' if isinstance(part, GPU) else 'CPU'} measured by its power meter"

    def read(self) -> float:
        """Return the kWh drawn so far."""
        now, cpu = time.perf_counter(), time.process_time()
        elapsed = now - self._read_at
        with _silent():
            counted = sum(part.measure_power_and_energy(elapsed)[1].kWh for part in self._counters)
        joules = self._watts * elapsed + self._watts_per_cpu * (cpu - self._cpu_at)
        self._kwh += joules / JOULES_PER_KWH + counted / self._workers
        self._read_at, self._cpu_at = now, cpu
        return self._kwh

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Read the counters now and then inside the `with` block, which may be long."""
        if not self._counters:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            # An error comes up again at the next reading, in the caller's own thread.
            with suppress(Exception):
                while not done.wait(_WATCH_S):
                    self.read()

        thread = threading.Thread(target=watch, name="transferscope-power", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _hardware(device: torch.device) -> list[Any]:
    """Let CodeCarbon find what draws power: memory, CPU and, on CUDA, the one GPU."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.external.hardware import GPU

    on_gpu = device.type == "cuda"
    tracker = OfflineEmissionsTracker(
        tracking_mode="machine",
        gpu_ids=[_gpu_index(device)] if on_gpu else [],
        output_methods=[],
        output_dir=tempfile.gettempdir(),  # what a legacy power reader writes into
        allow_multiple_runs=True,  # or it takes a lock file and replaces the handler of Ctrl-C
        log_level="critical",
    )
    parts = [part for part in _found_by(tracker) if on_gpu or not isinstance(part, GPU)]
    if on_gpu and not any(isinstance(part, GPU) for part in parts):
        raise RuntimeError(f"CodeCarbon cannot read the power of {device}")
    return parts


def _found_by(tracker: Any) -> list[Any]:
    """Return the pieces of hardware that a tracker of CodeCarbon has found, which it shows as words alone."""
    tracker.get_detected_hardware()
    hardware: list[Any] = tracker._hardware
    return hardware


def _estimated_watts(cpu: Any) -> float | None:
    """Return the power of the CPU at full load where CodeCarbon has no meter for it, which it keeps to itself."""
    return None if cpu._mode in ("intel_rapl", "windows_emi") else float(cpu._tdp)


def _gpu_index(device: torch.device) -> int:
    """Return the driver's number of a CUDA device, which CUDA_VISIBLE_DEVICES may have changed for torch."""
    import pynvml

    pynvml.nvmlInit()
    uuid = torch.cuda.get_device_properties(device).uuid
    return pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))


@contextmanager
def _silent() -> Iterator[None]:
    """Say nothing in CodeCarbon's log, which goes to stderr, and leave its level as it was."""
    log = logging.getLogger("codecarbon")
    disabled, level = log.disabled, log.level
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = disabled
        log.setLevel(level)
