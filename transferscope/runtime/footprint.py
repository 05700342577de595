"""What a run costs: seconds of each phase, FLOPs, energy, CO2, peak memory and trials."""

import math
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from transferscope.errors import InputError, TransferscopeWarning, check_whole
from transferscope.runtime.numbers import short_number
from transferscope.runtime.power import WORLD, CarbonIntensity, PowerMeter, carbon_intensity
from transferscope.runtime.seeding import CPU

_WATTS_PER_KW = 1e3
_SECONDS_PER_HOUR = 3.6e3


@dataclass(frozen=True)
class Footprint:
    """What one run cost, its share of earlier work included."""

    seconds: dict[str, float]
    """Wall-clock time by phase, in the order in which the phases began."""
    flops: float
    """Floating-point operations; a multiply-add counts as two. An integer; NaN when unknown."""
    kwh: float
    """Electricity (kWh); NaN when CodeCarbon does not work here."""
    kgco2e: float
    """What generating this electricity emitted (kg CO2e); NaN likewise."""
    peak_memory: int
    """Most bytes held at any time within a phase, whatever was held before included: on CUDA what torch has allocated
    there, elsewhere the resident memory of the process (where it is not Linux that tells: since the process started; 0
    where the system does not tell)."""
    trials: int
    """Hyper-parameter trials."""
    measured: bool
    """Whether the energy of the processors comes from power meters; False: it is an estimate."""


class Meter:
    """Measures runs, one at a time; each process has its own.

    Energy is what CodeCarbon's counters and estimates give for the phases of a run (see
    `transferscope.runtime.power`). When CodeCarbon fails, energy and CO2 are NaN and one warning says why.

    Parameters
    ----------
    country : str
        Whose electricity this is: an ISO 3166 alpha-3 code, or "world" for the world average.
    device : torch.device
        Where the work runs: its memory is watched, its kernels are waited for, its energy counts.
    workers : int
        Processes that work side by side on this machine, each with a meter of its own.
    energy : bool
        Whether electricity is counted at all.

    Raises
    ------
    InputError
        When CodeCarbon has no data for this country, or `workers` is not positive.
    """

    def __init__(self, country: str = WORLD, device: torch.device = CPU, workers: int = 1, energy: bool = True) -> None:
        workers = check_whole("workers", workers, 1)
        self.device = device
        self._made_from = (country, device, workers, energy)
        self._workers = workers
        self._running = False
        self._lost = ""
        self._intensity = CarbonIntensity(math.nan, "")
        self._power: PowerMeter | None = None
        self._kwh, self._seconds = 0.0, 0.0
        if not energy:
            self._lost = "they were not asked for"
            return
        try:
            self._intensity = carbon_intensity(country)
        except InputError:
            raise
        except Exception as error:
            self._give_up(error)

    def __reduce__(self) -> tuple[Any, ...]:
        """Start anew in another process."""
        return Meter, self._made_from

    @property
    def mean_watts(self) -> float:
        """Mean power over all phases measured so far (W); NaN before the first."""
        return self._kwh / self._seconds * _SECONDS_PER_HOUR * _WATTS_PER_KW if self._seconds else math.nan

    def describe(self) -> str:
        """Say in one line what is measured and what estimated, at which power, and where the electricity comes from."""
        power = self._ready()
        if power is None:
            return f"Energy and CO2 are not known: {self._lost}."
        what = "The processors' energy is measured" if power.measured else "Energy is an estimate"
        drawn = f"; {short_number(self.mean_watts)} W on average so far" if self._seconds else ""
        return (
            f"{what}: {power.description}{drawn}. "
            f"{self._intensity.grams:.4g} g CO2e/kWh: {self._intensity.place}, from CodeCarbon."
        )

    @contextmanager
    def run(self) -> Iterator["RunMeter"]:
        """Measure one run: the phases within the `with` block.

        Raises
        ------
        InputError
            When another run of this meter is not over.
        """
        if self._running:
            raise InputError("A meter measures one run at a time: leave the `with` block of the run before")
        self._ready()
        self._running = True
        try:
            yield RunMeter(self)
        finally:
            self._running = False

    def _ready(self) -> PowerMeter | None:
        """Return the power meter, made on first use (it takes a second or so); None when there is none."""
        if self._power is None and not self._lost:
            try:
                self._power = PowerMeter(self.device, self._workers)
            except Exception as error:
                self._give_up(error)
        return self._power

    def _read(self) -> float:
        """Return the kWh drawn so far, NaN when they are not known."""
        if self._power is not None:
            try:
                return self._power.read()
            except Exception as error:
                self._give_up(error)
        return math.nan

    def _give_up(self, error: Exception) -> None:
        self._power = None
        self._lost = f"CodeCarbon does not work here ({type(error).__name__}: {error})"
        warnings.warn(f"{self._lost}; energy and CO2 are NaN", TransferscopeWarning, stacklevel=2)


class RunMeter:
    """What one run has cost so far.

    `trials` is the caller's to count.
    """

    def __init__(self, meter: Meter) -> None:
        self.trials = 0
        self._meter = meter
        self._in_phase = False
        self._phases: dict[str, float] = {}
        self._flops: float = 0
        self._kwh = 0.0
        self._unmetered_seconds = 0.0
        self._peak = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the `with` block as part of the phase `name`; several blocks of one name add up.

        Work outside of phases is not part of the run's footprint.

        Raises
        ------
        InputError
            When another phase is not over.
        """
        if self._in_phase:
            raise InputError(f"Phases do not nest: leave the `with` block of the phase before {name!r} first")
        meter, device = self._meter, self._meter.device
        self._phases.setdefault(name, 0.0)
        self._in_phase = True
        _synchronise(device)
        _reset_peak(device)
        before, started = meter._read(), time.perf_counter()
        try:
            with meter._power.watched() if meter._power else nullcontext():
                yield
        finally:
            self._in_phase = False
            _synchronise(device)
            seconds, kwh = time.perf_counter() - started, meter._read() - before
            self._phases[name] += seconds
            self._kwh += kwh
            meter._seconds += seconds
            meter._kwh += kwh
            self._peak = max(self._peak, _read_peak(device))

    def add_flops(self, flops: float) -> None:
        """Add floating-point operations (a multiply-add counts as two); NaN when they are unknown."""
        self._flops += flops

    def charge(self, phase: str, seconds: float, flops: float = 0, kwh: float | None = None) -> None:
        """Add this run's share of work done elsewhere.

        Parameters
        ----------
        phase : str
            The phase it belongs to.
        seconds : float
            Wall-clock time.
        flops : float
            Floating-point operations, NaN when unknown.
        kwh : float, optional
            Electricity; by default the mean power of all phases that the meter has measured, times `seconds`.
        """
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds
        self._flops += flops
        if kwh is None:
            self._unmetered_seconds += seconds
        else:
            self._kwh += kwh

    def footprint(self) -> Footprint:
        """Return the footprint so far.

        Raises
        ------
        InputError
            When a phase is not over.
        """
        if self._in_phase:
            raise InputError("A footprint is taken between phases: leave the `with` block of the phase first")
        meter = self._meter
        kwh = self._kwh
        if self._unmetered_seconds:
            kwh += meter.mean_watts / _WATTS_PER_KW * self._unmetered_seconds / _SECONDS_PER_HOUR
        return Footprint(
            seconds=dict(self._phases),
            flops=self._flops,
            kwh=kwh,
            kgco2e=kwh * meter._intensity.grams / 1e3,
            peak_memory=self._peak,
            trials=self.trials,
            measured=meter._power is not None and meter._power.measured,
        )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    """Start a new high-water mark of memory at what is held now, where that is possible."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # not Linux, or not allowed: the mark is that of the whole process


def _read_peak(device: torch.device) -> int:
    """Return the high-water mark of memory (bytes), 0 where the system has none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
