"""Footprints: phases and shares add up, energy is what CodeCarbon accounts for, and nothing is said, sent or left."""

import math
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from codecarbon import OfflineEmissionsTracker
from codecarbon.core.units import Energy, Power
from codecarbon.external import hardware

from transferscope.errors import InputError, TransferscopeWarning
from transferscope.runtime import power
from transferscope.runtime.footprint import Meter

pytestmark = pytest.mark.bounds

JOULES_PER_KWH = 3.6e6


class Counter:
    """Hardware whose energy the test decides."""

    def __init__(self):
        self.joules, self.reads, self.broken = 0.0, 0, False

    def start(self):
        pass

    def measure_power_and_energy(self, _seconds):
        if self.broken:
            raise OSError("the counter is gone")
        self.reads += 1
        joules, self.joules = self.joules, 0.0
        return Power.from_watts(0.0), Energy.from_energy(joules / JOULES_PER_KWH)


@pytest.fixture
def counter(monkeypatch):
    """A machine that draws nothing but what this counter says."""
    counter = Counter()
    monkeypatch.setattr(power, "_hardware", lambda _device: [counter])
    return counter


@pytest.fixture(scope="module")
def meter():
    return Meter("ESP")


def burn(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def fail_after(seconds):
    time.sleep(seconds)
    raise KeyError("failed")


# --- time and shares ----------------------------------------------------------------------------------------------


def test_phases_of_one_name_add_up_in_the_order_in_which_they_began(meter):
    with meter.run() as run:
        for name, seconds in [("search", 0.02), ("training", 0.01), ("search", 0.03)]:
            with run.phase(name):
                time.sleep(seconds)
        time.sleep(0.05)  # outside of phases nothing counts
        run.trials += 4
        run.add_flops(10)
        run.add_flops(5)
    cost = run.footprint()
    assert list(cost.seconds) == ["search", "training"]
    assert 0.05 <= cost.seconds["search"] < 0.09
    assert 0.01 <= cost.seconds["training"] < 0.05
    assert (cost.trials, cost.flops) == (4, 15)
    run.add_flops(math.nan)
    run.add_flops(5)
    assert math.isnan(run.footprint().flops)


def test_a_phase_that_fails_counts_and_ends(meter):
    with meter.run() as run:
        with pytest.raises(KeyError), run.phase("training"):
            fail_after(0.01)
        with run.phase("training"):
            pass
    assert run.footprint().seconds["training"] >= 0.01
    with pytest.raises(KeyError), meter.run():
        fail_after(0.0)
    with meter.run():
        pass


def test_a_share_of_earlier_work_is_added(counter):
    meter = Meter("ESP")
    with meter.run() as run:
        run.charge("features", 3.0, 100, kwh=2e-6)
        run.charge("features", 1.0, 20, kwh=1e-6)
        with run.phase("head"):
            counter.joules = 36.0
    cost = run.footprint()
    assert list(cost.seconds) == ["features", "head"]
    assert (cost.seconds["features"], cost.flops) == (4.0, 120)
    assert cost.kwh == pytest.approx(3e-6 + 36 / JOULES_PER_KWH)


def test_a_share_of_unknown_energy_is_charged_at_the_mean_power_so_far(counter):
    meter = Meter("ESP")
    assert math.isnan(meter.mean_watts)
    joules = seconds = 0.0
    for each in (10.0, 50.0):
        with meter.run() as run, run.phase("head"):
            counter.joules = each
        joules, seconds = joules + each, seconds + run.footprint().seconds["head"]
    assert meter.mean_watts == pytest.approx(joules / seconds)
    with meter.run() as run:
        run.charge("features", 7.0)
    assert run.footprint().kwh == pytest.approx(7.0 * joules / seconds / JOULES_PER_KWH)


@pytest.mark.parametrize("workers", [0, -1])
def test_misuse_is_an_input_error(meter, workers):
    with pytest.raises(InputError, match=f"`workers` to be a whole number of at least 1, but got {workers}"):
        Meter(workers=workers)
    with meter.run() as run:
        with pytest.raises(InputError, match="one run at a time"), meter.run():
            pass
        with run.phase("training"):
            with (
                pytest.raises(InputError, match=r"Phases do not nest: .* before 'inner' first"),
                run.phase("inner"),
            ):
                pass
            with pytest.raises(InputError, match="footprint is taken between phases"):
                run.footprint()
    assert list(run.footprint().seconds) == ["training"]


# --- energy -------------------------------------------------------------------------------------------------------


def test_energy_is_that_of_codecarbons_own_tracker(monkeypatch):
    """The power of the memory is given: the tracker takes that of the process for the machine's."""
    monkeypatch.setenv("CODECARBON_FORCE_RAM_POWER", "7")
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "90")
    meter = Meter("FRA")
    with power._silent():
        tracker = OfflineEmissionsTracker(
            country_iso_code="FRA", tracking_mode="process", output_methods=[], log_level="critical", gpu_ids=[]
        )
        tracker.start_task("first")  # finds the hardware
        tracker.stop_task("first")
    with meter.run() as run:
        with power._silent():
            tracker.start_task("second")
        with run.phase("training"):
            burn(0.7)
            time.sleep(0.3)
        with power._silent():
            theirs = tracker.stop_task("second")
            tracker.stop()
    ours = run.footprint()
    # Their CPU times come in steps of 10 ms.
    assert ours.kwh == pytest.approx(theirs.energy_consumed, rel=0.06)
    assert ours.kgco2e == pytest.approx(theirs.emissions, rel=0.06)
    assert ours.kgco2e / ours.kwh == pytest.approx(theirs.emissions / theirs.energy_consumed)
    assert not ours.measured


def test_without_a_power_meter_energy_is_cpu_time_and_memory(monkeypatch):
    monkeypatch.setenv("CODECARBON_FORCE_RAM_POWER", "6")
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "80")
    cores = os.cpu_count()
    for workers in (1, 3):
        meter = Meter("ESP", workers=workers)
        with meter.run() as run, run.phase("training"):
            before = time.process_time()
            burn(0.1)
            time.sleep(0.05)
            cpu_seconds = time.process_time() - before
        cost = run.footprint()
        joules = 6 / workers * cost.seconds["training"] + 80 / cores * cpu_seconds
        assert cost.kwh == pytest.approx(joules / JOULES_PER_KWH, rel=0.03)
        said = meter.describe()
        assert said.startswith("Energy is an estimate: memory estimated at 6 W; no power meter for the CPU")
        assert f"80 W for all {cores} cores" in said
        assert (f"divided among {workers} workers" in said) == (workers > 1)
        assert f"{meter.mean_watts:.3g} W on average so far" in said


@pytest.mark.parametrize("workers", [1, 4])
def test_an_energy_counter_is_read_and_divided_among_the_workers(tmp_path, monkeypatch, workers):
    """CodeCarbon's own reader of RAPL, on a folder that looks like the kernel's."""
    domain = tmp_path / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0\n")
    (domain / "max_energy_range_uj").write_text("262143328850\n")
    energy = domain / "energy_uj"
    energy.write_text("1000000\n")
    cpu = hardware.CPU(str(tmp_path), "intel_rapl", "A CPU", 65, rapl_dir=str(domain.parent))
    monkeypatch.setattr(power, "_hardware", lambda _device: [cpu])
    meter = Meter("POL", workers=workers)
    with meter.run() as run:
        energy.write_text("9000000\n")  # 8 J before the phase
        with run.phase("training"):
            energy.write_text("14000000\n")
    cost = run.footprint()
    assert cost.kwh == pytest.approx(5 / workers / JOULES_PER_KWH, rel=1e-5)
    assert cost.measured
    assert meter.describe().startswith("The processors' energy is measured: CPU measured by its power meter")


def test_counters_are_read_now_and_then_in_a_long_phase(counter, monkeypatch):
    monkeypatch.setattr(power, "_WATCH_S", 0.01)
    with Meter().run() as run:
        assert counter.reads == 0
        with run.phase("training"):
            for _ in range(5):
                counter.joules += 1.0
                time.sleep(0.03)
    assert counter.reads > 5
    assert run.footprint().kwh == pytest.approx(5 / JOULES_PER_KWH)
    assert not [thread for thread in threading.enumerate() if "power" in thread.name]


# --- countries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("country", ["esp", "ESP", "NOR", "world", "World"])
def test_carbon_intensity_is_codecarbons(country, counter):
    world = country.lower() == "world"
    meter = Meter(country)
    with meter.run() as run:
        run.charge("features", 1.0, kwh=2.0)
    from codecarbon.core.emissions import Emissions
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    # CodeCarbon takes the world average where it does not know a country.
    place = GeoMetadata(country_iso_code="XXX" if world else country)
    with power._silent():
        expected = Emissions(DataSource()).get_country_emissions(Energy.from_energy(kWh=2.0), place)
    assert run.footprint().kgco2e == pytest.approx(expected)
    said = meter.describe()
    assert f"{expected * 500:.4g} g CO2e/kWh: " in said
    assert "\n" not in said
    assert {"esp": "Spain in 20", "nor": "Norway in 20", "world": "the world average (http"}[country.lower()] in said


@pytest.mark.parametrize(
    ("country", "hint"),
    [("spain", r"'spain' \(did you mean 'ESP'\?\)"), ("FRE", "'FRE' .*'FRA'"), ("", "got ''"), (None, "got None")],
)
def test_an_unknown_country_is_an_input_error_with_near_names(country, hint):
    with pytest.raises(InputError, match=f"`country` to be 'world' or the ISO 3166 alpha-3 code.*{hint}"):
        Meter(country)


# --- where CodeCarbon does not work -------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["codecarbon", "codecarbon.input"])
def test_without_codecarbon_energy_is_nan_and_said_once(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)

    def run_twice():
        meter = Meter("ESP")
        for _ in range(2):
            with meter.run() as run:
                run.charge("features", 1.0)
                with run.phase("training"):
                    time.sleep(0.01)
        return meter.describe(), run.footprint()

    with pytest.warns(
        TransferscopeWarning, match=r"CodeCarbon does not work here .*; energy and CO2 are NaN"
    ) as warned:
        said, cost = run_twice()
    assert len(warned) == 1
    assert said.startswith("Energy and CO2 are not known: CodeCarbon does not work here (")
    assert math.isnan(cost.kwh)
    assert math.isnan(cost.kgco2e)
    assert not cost.measured
    assert cost.seconds["training"] >= 0.01
    assert cost.peak_memory > 0


def test_a_counter_that_fails_in_a_run_does_not_end_it(counter):
    def run_on():
        with Meter("ESP").run() as run:
            for _ in range(2):
                with run.phase("training"):
                    counter.broken = True
        return run.footprint()

    with pytest.warns(TransferscopeWarning, match="OSError: the counter is gone") as warned:
        cost = run_on()
    assert len(warned) == 1
    assert math.isnan(cost.kwh)


def test_a_gpu_whose_power_cannot_be_read_leaves_energy_unknown():
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.warns(TransferscopeWarning, match="energy and CO2 are NaN"):
        assert Meter(device=torch.device("cuda", 0)).describe().startswith("Energy and CO2 are not known")


# --- what it does to the machine ----------------------------------------------------------------------------------


def test_nothing_is_said_sent_written_or_left_running(tmp_path):
    code = """
import logging, socket, tempfile, threading
from pathlib import Path
class Refused(socket.socket):
    def __init__(self, *_args, **_kwargs):
        raise AssertionError("network")
socket.socket = Refused
from transferscope.runtime.footprint import Meter
meter = Meter("ESP")
for _ in range(2):
    with meter.run() as run, run.phase("training"):
        pass
assert run.footprint().kwh > 0 and "Spain" in meter.describe()
assert threading.enumerate() == [threading.main_thread()]
assert not logging.getLogger("codecarbon").disabled
assert not (Path(tempfile.gettempdir()) / ".codecarbon.lock").exists()
"""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=here, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "home"]


def test_a_copy_in_another_process_starts_anew(meter):
    with meter.run() as run, run.phase("training"):
        burn(0.01)
        copy = pickle.loads(pickle.dumps(meter))
    assert math.isnan(copy.mean_watts)
    with copy.run() as run, run.phase("training"):
        burn(0.01)
    assert run.footprint().kwh > 0
    assert run.footprint().kgco2e / run.footprint().kwh == pytest.approx(meter._intensity.grams / 1e3)


def test_measuring_takes_far_less_than_a_run(meter):
    with meter.run():
        pass
    started = time.perf_counter()
    for _ in range(100):
        with meter.run() as run:
            for name in ("search", "training"):
                with run.phase(name):
                    pass
        run.footprint()
    assert time.perf_counter() - started < 100 * 0.005


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset on Linux alone")
def test_peak_memory_is_the_most_held_within_the_phases_of_a_run(meter):
    def peak(megabytes, outside=0):
        with meter.run() as run:
            np.ones(outside * 125_000).sum()
            with run.phase("training"):
                np.ones(megabytes * 125_000).sum()
            with run.phase("after"):
                pass
        return run.footprint().peak_memory

    peak(200)
    before = peak(1)
    assert 180e6 < peak(200) - before < 240e6
    assert abs(peak(1, outside=200) - before) < 40e6


def test_electricity_that_was_not_asked_for_is_not_counted_and_not_warned_of():
    meter = Meter(energy=False)
    with meter.run() as run, run.phase("training"):
        pass
    footprint = run.footprint()
    assert footprint.seconds["training"] >= 0
    assert math.isnan(footprint.kwh)
    assert meter.describe() == "Energy and CO2 are not known: they were not asked for."
