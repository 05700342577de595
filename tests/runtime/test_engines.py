"""Engines and the crew that works on units: results, losses, refusals, and what a person is told."""

import errno
import logging
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from transferscope.errors import InputError, TransferscopeError, TransferscopeWarning
from transferscope.runtime.engines import crew, on_dask, on_slurm, processes, units
from transferscope.runtime.engines.crew import Crew
from transferscope.runtime.engines.engine import Engine, Given, is_lost
from transferscope.runtime.engines.gpus import one_each
from transferscope.runtime.engines.naming import Place, parse_place, place_of
from transferscope.runtime.engines.units import Unit, perform, write_job


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(units, "_works", {})
    return tmp_path / "home"


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; 13 is bad luck."""

    factor: int = 2

    def perform(self, number, *, shared):
        if number == 13:
            raise ValueError("bad\nluck")
        if number == 7:
            import warnings

            warnings.warn("seven", TransferscopeWarning, stacklevel=1)
        return self.factor * number, shared


def chains(*numbers):
    return [[(f"number {number}", (number,))] for number in numbers]


def found(workers, chains):
    return {arguments[0]: outcome for arguments, outcome in workers.carry_out(chains)}


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield Given(executor)


def test_units_come_back_with_their_results_warnings_and_workers(threads, home):
    made = Crew(threads, Doubling())
    outcomes = found(made, chains(1, 7, 2))
    assert {number: outcome.value for number, outcome in outcomes.items()} == {
        1: (2, True),
        7: (14, True),
        2: (4, True),
    }
    assert outcomes[7].warnings == ("seven",)
    assert str(os.getpid()) in outcomes[1].worker
    assert list(home.rglob("*.pickle")) == [made.job.path]
    made.close()
    assert not list(home.rglob("*.pickle"))


def test_the_first_of_a_chain_goes_ahead(threads):
    order = [arguments[0] for arguments, _ in Crew(threads, Doubling()).carry_out(
        [[("a", (1,)), ("b", (2,)), ("c", (3,))], [("d", (4,))]]
    )]  # fmt: skip
    assert sorted(order) == [1, 2, 3, 4]
    assert order.index(1) < min(order.index(2), order.index(3))


def test_a_unit_that_fails_costs_no_other_and_is_written_down(threads, home):
    outcomes = found(Crew(threads, Doubling()), chains(1, 13))
    assert outcomes[1].value == (2, True)
    assert outcomes[13].error == "ValueError: bad luck"
    (log,) = (home / "failures").iterdir()
    text = log.read_text()
    assert "number 13 on" in text
    assert outcomes[13].worker in text
    assert 'raise ValueError("bad' in text


def test_a_unit_is_small_whatever_the_work():
    job, content = write_job(Doubling(factor=10**100_000))
    assert len(content) > 40_000
    assert len(pickle.dumps(Unit(job, "one", (1,)))) < 1000


def test_work_is_sent_along_to_workers_that_do_not_see_the_cache(threads, monkeypatch, tmp_path):
    made = Crew(threads, Doubling())
    made.job.path.unlink()  # as on a machine with a disk of its own
    assert {number: outcome.value for number, outcome in found(made, chains(1, 2)).items()} == {
        1: (2, False), 2: (4, False),
    }  # fmt: skip


def test_work_that_was_changed_on_the_disk_is_not_unpickled():
    job, content = write_job(Doubling())
    job.path.write_bytes(content.replace(b"factor", b"fact0r"))
    outcome = perform(Unit(job, "one", (1,)))
    assert outcome.refused
    assert "was changed" in outcome.error


def test_a_worker_of_another_version_is_refused_by_name(threads):
    made = Crew(threads, Doubling())
    made._job = replace(made.job, versions=(("transferscope", "9.9"),))
    with pytest.raises(TransferscopeError, match=r"The worker .*process \d+.* cannot carry out number 1: it has "
                       r"transferscope .*, but the process that asks has 9\.9; install the same"):  # fmt: skip
        found(made, chains(1))


def test_work_that_cannot_be_sent_is_said_to_be(threads):
    class Local:
        perform = None

    with pytest.raises(InputError, match=r"`jobs`, `on` and `executor`.*use jobs=1"):
        Crew(threads, Local())


class Breaks(Engine):
    """Runs at once. A unit of `deadly` breaks the pool, with those that are `slow` in the first one."""

    def __init__(self, deadly, slow=(), most=2):
        self.deadly, self.slow, self._most, self.pools, self.pending = deadly, slow, most, [[]], []

    @property
    def executor(self):
        return self

    @property
    def most(self):
        return self._most

    def submit(self, function, unit):
        future, (number,) = Future(), unit.arguments
        self.pools[-1].append(number)
        if number in self.deadly:
            for each in (*self.pending, future):
                each.set_exception(BrokenProcessPool())
            self.pending = []
        elif number in self.slow and len(self.pools) == 1:
            self.pending.append(future)
        else:
            future.set_result(function(unit))
        return future

    def renew(self, *, alone):
        self.pools.append([])

    def close(self):
        pass


def test_what_was_beside_a_process_that_died_is_done(monkeypatch):
    engine = Breaks(deadly={13}, slow={2})
    outcomes = found(Crew(engine, Doubling()), chains(1, 2, 13, 4))
    assert {number: outcome.value for number, outcome in outcomes.items()} == {
        1: (2, True), 2: (4, True), 13: None, 4: (8, True),
    }  # fmt: skip
    assert outcomes[13].error == engine.lost
    # In company once, then alone; three times in all, and the others go on.
    assert engine.pools == [[1, 2, 13], [2, 13], [13], [4]]


def test_lost_workers_of_an_engine_that_goes_on_are_made_up_for():
    class KilledWorker(Exception):  # noqa: N818  # Dask's name
        pass

    tries = Counter()

    class Flaky(Breaks):
        def submit(self, function, unit):
            (number,) = unit.arguments
            tries[number] += 1
            future = Future()
            if number == 3 or (number == 2 and tries[2] < 3):
                future.set_exception(KilledWorker())
            else:
                future.set_result(function(unit))
            return future

    outcomes = found(Crew(Flaky(()), Doubling()), chains(1, 2, 3))
    assert (outcomes[1].value, outcomes[2].value) == ((2, True), (4, True))
    assert outcomes[3].error == Flaky.lost
    assert tries == {1: 1, 2: 3, 3: 3}


def test_a_given_executor_that_breaks_ends_the_call_in_a_sentence():
    class Broken(ThreadPoolExecutor):
        def submit(self, *_):
            raise BrokenExecutor("gone")

    with Broken() as executor, pytest.raises(TransferscopeError, match=r"the Broken broke: .* what has ended is kept"):
        found(Crew(Given(executor), Doubling()), chains(1))


def test_an_executor_that_was_shut_down_ends_the_call_in_a_sentence():
    executor = ThreadPoolExecutor()
    executor.shutdown()
    with pytest.raises(TransferscopeError, match=r"takes no more units .*shutdown"):
        found(Crew(Given(executor), Doubling()), chains(1))


def test_an_engine_is_asked_whether_units_still_can_end(monkeypatch):
    class Deserted(Breaks):
        def submit(self, *_):
            return Future()

        def check(self):
            raise TransferscopeError("all have left")

    monkeypatch.setattr(crew, "_LOOK_EVERY_S", 0.01)
    with pytest.raises(TransferscopeError, match="all have left"):
        found(Crew(Deserted(()), Doubling()), chains(1))


def test_when_the_time_is_up_nothing_more_is_begun():
    answers = iter([False, False, False, *[True] * 99])
    done = list(Crew(Breaks(()), Doubling()).carry_out(chains(1, 2, 3, 4), out_of_time=lambda: next(answers)))
    assert 1 <= len(done) < 4


def test_what_waits_is_cancelled_by_whoever_stops_listening():
    class Waits(Breaks):
        def submit(self, function, unit):
            future = Future() if unit.arguments[0] != 1 else super().submit(function, unit)
            self.pending.append(future)
            return future

    engine = Waits(())
    results = Crew(engine, Doubling()).carry_out(chains(1, 2))
    next(results)
    results.close()
    assert engine.pending[1].cancelled()


@pytest.mark.parametrize(
    ("on", "place"),
    [
        ("processes:3", Place("processes", workers=3)),
        ("dask:tcp://10.0.0.1:8786", Place("dask", address="tcp://10.0.0.1:8786")),
        ("dask:local:2", Place("dask", workers=2, address="local")),
        ("slurm", Place("slurm")),
        ("slurm:partition=gpu,gpus=1,time=60", Place("slurm", options={"partition": "gpu", "gpus": 1, "time": 60})),
    ],
)
def test_engines_are_named(on, place):
    assert parse_place(on) == place


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("proceses:2", "did you mean 'processes'"),
        ("processes:", "Expected `on` to be like"),
        ("processes:0", "at least 1"),
        ("processes:two", "number after 'processes:'"),
        ("dask:10.0.0.1", "address of Dask's scheduler"),
        ("slurm:partitoin=gpu", "did you mean 'partition'"),
        ("slurm:gpus=many", "whole number of gpus"),
        ("slurm:time=0", "whole number of minutes"),
        ("slurm:cluster=moon", "cluster=slurm or cluster=local"),
        ("", "Expected `on` to be like"),
        (3, "text like"),
    ],
)
def test_what_is_no_engine_is_said_to_be(on, message):
    with pytest.raises(InputError, match=message):
        parse_place(on)


def test_one_of_jobs_on_and_executor_is_taken(threads):
    assert place_of(None, None) is None
    assert place_of(None, None, 2) == Place("processes", workers=2)
    assert place_of(None, threads.executor).kind == "executor"
    for arguments, message in (
        (("slurm", threads.executor), "`executor` alone"),
        ((None, threads.executor, 2), "`executor` alone"),
        (("slurm", None, 2), "`on` or `jobs`"),
        ((None, "four"), "concurrent.futures.Executor, but got str"),
    ):
        with pytest.raises(InputError, match=message):
            place_of(*arguments)


def test_naming_an_engine_imports_none():
    code = (
        "import sys, transferscope.runtime.engines.naming\n"
        "assert not {'torch', 'distributed', 'submitit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its event loop is nobody's concern
        with distributed.Client(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, set_as_default=False
        ) as client:
            yield client


class TestDask:
    def test_its_executor_carries_units_out(self, client):
        outcomes = found(Crew(Given(client.get_executor(pure=False)), Doubling()), chains(1, 2, 13))
        assert (outcomes[1].value, outcomes[2].value) == ((2, True), (4, True))
        assert outcomes[13].error == "ValueError: bad luck"

    def test_a_client_is_no_executor(self, client):
        with pytest.raises(InputError, match=r"pass client\.get_executor\(\)"):
            place_of(None, client)

    def test_an_address_that_nobody_listens_on_is_said_to_be(self, monkeypatch):
        pytest.importorskip("distributed")
        monkeypatch.setattr(on_dask, "_PATIENCE_S", 0.2)
        with pytest.raises(TransferscopeError, match=r"scheduler at tcp://127\.0\.0\.1:9, but nobody answers there"):
            on_dask.OnDask("tcp://127.0.0.1:9")

    @pytest.fixture
    def engine(self, client):
        with on_dask.OnDask(client.scheduler.address) as engine:
            yield engine

    def test_a_worker_of_another_version_is_refused_before_anything_is_sent_to_it(self, client, monkeypatch):
        monkeypatch.setattr(on_dask, "own_versions", lambda: (("transferscope", "9.9"),))
        said = r"^The worker \w+://\S+ of Dask has transferscope \S+, but the process that asks has 9\.9; install 9\.9"
        with pytest.raises(TransferscopeError, match=said):
            on_dask.OnDask(client.scheduler.address)

    @pytest.mark.parametrize("where", ["run", "run_on_scheduler"])
    def test_where_it_is_not_installed_is_said(self, client, monkeypatch, where):
        error = PackageNotFoundError("transferscope")
        answers = {
            "run": lambda *_args, **_options: {"tcp://10.0.0.2:1": error},
            "run_on_scheduler": lambda *_: (_ for _ in ()).throw(error),
        }
        monkeypatch.setattr(f"distributed.Client.{where}", lambda _self, *args, **more: answers[where](*args, **more))
        who = {"run": "The worker tcp://10.0.0.2:1 of Dask", "run_on_scheduler": "Dask's scheduler"}[where]
        with pytest.raises(TransferscopeError, match=f"^{who} has no transferscope, but"):
            on_dask.OnDask(client.scheduler.address)

    def test_a_scheduler_that_its_workers_leave_for_good_is_given_up(self, engine, monkeypatch):
        engine.check()
        monkeypatch.setattr(on_dask.OnDask, "size", 0)
        engine.check()  # others may come
        monkeypatch.setattr(on_dask, "_DESERTED_S", -1)
        monkeypatch.setattr(on_dask.OnDask, "size", 1)
        engine.check()
        monkeypatch.setattr(on_dask.OnDask, "size", 0)
        monkeypatch.setattr(on_dask, "_DESERTED_S", 60)
        engine.check()  # it is not long since
        monkeypatch.setattr(on_dask, "_DESERTED_S", 0)
        with pytest.raises(TransferscopeError, match=r"has had no worker for 0 s; what has ended is kept"):
            engine.check()

    def test_a_scheduler_that_goes_away_is_said_to_and_nothing_else(self, engine, monkeypatch, caplog):
        monkeypatch.setattr(engine, "_client", SimpleNamespace(status="connecting"))
        logging.getLogger("distributed.client").error("a traceback")
        with pytest.raises(TransferscopeError, match=r"scheduler at inproc://\S+ went away; what has ended is kept"):
            Crew(engine, Doubling())._outcome(lost())
        assert not caplog.text


def lost():
    """Return the future of a unit that an engine calls off."""
    future = Future()
    future.cancel()
    return future


class TestSlurm:
    @pytest.fixture(autouse=True)
    def submitit(self):
        return pytest.importorskip("submitit")

    def test_jobs_of_this_machine_return_what_calls_return_or_raise(self, home):
        with on_slurm.OnSlurm({"cluster": "local"}) as engine:
            root, wrong = engine.executor.submit(math.sqrt, 4.0), engine.executor.submit(math.sqrt, -1.0)
            assert root.result(timeout=60) == 2.0
            assert is_lost(wrong.exception(timeout=60))  # submitit says so of whatever a job raised
        assert (home / "slurm").is_dir()

    def test_a_disk_that_is_full_is_said_to_be(self, home, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with on_slurm.OnSlurm({"cluster": "local"}) as engine:
            monkeypatch.setattr(engine._executor._jobs, "submit", full)
            error = engine.executor.submit(math.sqrt, 4.0).exception(timeout=60)
        said = rf"SLURM does not take the jobs, with their files in {home}/slurm \(.*No space left on device\); what"
        assert re.match(said, str(error))

    def test_where_there_is_no_slurm_it_is_said(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        with pytest.raises(TransferscopeError, match="Expected SLURM on this machine for `on`"):
            on_slurm.OnSlurm({})


class TestGpus:
    """One GPU for each worker of this machine; how many there are is made up."""

    @pytest.fixture(autouse=True)
    def three(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 3)

    @pytest.mark.parametrize(
        ("visible", "workers", "given"),
        [
            (None, 2, ["0", "1"]),
            (None, 4, ["0", "1", "2", "0"]),
            ("5,7,6", 3, ["5", "7", "6"]),
            ("GPU-a, GPU-b, MIG-c", 3, ["GPU-a", "GPU-b", "MIG-c"]),
            ("5,7,6,99", 4, ["5", "7", "6", "5"]),  # CUDA sees none after one that there is not
        ],
    )
    def test_workers_see_one_after_the_other(self, monkeypatch, visible, workers, given):
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert one_each(workers) == given

    def test_one_gpu_is_shared_as_it_is(self, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
        assert one_each(4) == []

    def test_processes_take_theirs_before_they_begin(self, monkeypatch):
        given = []
        monkeypatch.setattr(
            processes, "ProcessPoolExecutor", lambda *_, initargs, **__: given.append(initargs[1]) or Breaks(())
        )
        monkeypatch.setattr(Breaks, "submit", lambda *_: Future())
        for spread in (True, False):
            processes.Processes(4, spread=spread)
        assert [given[0].get() for _ in range(4)] == ["0", "1", "2", "0"]
        assert given[1] is None

    def test_workers_of_a_scheduler_that_is_started_here_have_theirs_from_the_start(self):
        cluster = SimpleNamespace(new_worker_spec=lambda: {next(names): {"cls": None, "options": {"nthreads": 1}}})
        names = iter(range(4))
        on_dask._spread(cluster, one_each(4))
        specified = [worker for _ in range(4) for worker in cluster.new_worker_spec().values()]
        assert [worker["options"]["env"] for worker in specified] == [
            {"CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1", "2", "0")
        ]
        assert all(worker["options"]["nthreads"] == 1 for worker in specified)


@pytest.mark.parametrize("engine", ["dask", "slurm"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(engine, monkeypatch):
    package = {"dask": "distributed", "slurm": "submitit"}[engine]
    monkeypatch.setitem(sys.modules, package, None)
    extra = rf"package {package} for `on`.*pip install 'transferscope\[{engine}\]'"
    with pytest.raises(TransferscopeError, match=extra), crew.crew(parse_place(engine), Doubling()):
        pass
