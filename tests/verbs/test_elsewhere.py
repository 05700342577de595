"""Verbs on engines: the same answer byte for byte, whoever carries the units out, and whatever becomes of workers."""

import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from image_folders import write
from safetensors.torch import save_file

import transferscope as ts
from transferscope.errors import DeviceError, InputError, SourceError, TransferscopeError, TransferscopeWarning
from transferscope.networks.compact import CompactResNet
from transferscope.protocols.training.recipe import Recipe
from transferscope.runtime.engines import units
from transferscope.runtime.engines.engine import Given
from transferscope.runtime.store import Store
from transferscope.verbs.bench import Bench
from transferscope.verbs.rank.request import RankRequest
from transferscope.verbs.rank.scorer import Scorer

FACTORY = """
import warnings
from transferscope.errors import TransferscopeWarning
from transferscope.networks import CompactResNet

def build(width=8):
    return CompactResNet(4, width=width)

class Warns(CompactResNet):
    def forward(self, x):
        warnings.warn("said by a network", TransferscopeWarning)
        return super().forward(x)

def warns():
    return Warns(4, width=4)

def broken():
    raise RuntimeError("factory went wrong")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with networks, whose paths are in the messages of answers."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "nets.py").write_text(FACTORY)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        save_file(CompactResNet(4, width=8).state_dict(), folder / "a.safetensors")
    return folder


@pytest.fixture(autouse=True)
def house(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(units, "_works", {})
    monkeypatch.setattr("transferscope.activations.timing._SECONDS", 0.0)


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def entry(name, function="build", **more):
    transform = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    return {"name": name, "loader": "python", "factory": f"nets.py:{function}", "transform": transform, **more}


ZOO = [entry("a", checkpoint="a.safetensors"), entry("warns", "warns"), entry("broken", "broken")]


def rank(target, zoo=ZOO, **options):
    options = {"samples": 120, "batch_size": 8, "recipe": Recipe(epochs=1, min_steps=0), **options}
    return ts.rank(target, zoo, device="cpu", progress=False, trust_code=True, mode="quick", **options)


@pytest.fixture(scope="module")
def few(digits):
    """Few images, of which a probe of 120 leaves few more to look at."""
    return digits[0][:130], digits[1][:130]


@pytest.fixture(scope="module")
def once(few, folder):
    """Answer once in one process; return the folder of its cache, and the answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
        with pytest.warns(TransferscopeWarning, match="said by a network"):
            return folder / "home", rank(few).to_json()


@pytest.fixture
def alone(once, home):
    """Return what one process answers; the protocols of its sources and the reference are known: they take longest."""
    for known in ("protocols", "reference"):
        shutil.copytree(once[0] / known, home / known)
    return once[1]


@pytest.mark.filterwarnings("ignore:warns. said by a network")
class TestRank:
    @pytest.mark.parametrize("workers", [2, 7])
    def test_the_answer_is_that_of_one_process_byte_for_byte(self, few, executor, alone, workers, home, monkeypatch):
        monkeypatch.setattr(Given, "size", workers)
        shutil.rmtree(home / "reference")  # which is a unit too
        answer = rank(few, executor=executor)
        assert answer.to_json() == alone
        shards = {2: 1, 7: 3}[workers]  # of 120 images: 120 * 3 / 7, in batches of 8
        assert len(list((home / "features").rglob("*.safetensors"))) == 1 + 2 * shards
        assert not list(home.rglob("*.pickle"))

    def test_workers_with_a_cache_of_their_own_send_results_back(
        self, few, executor, alone, home, tmp_path, monkeypatch
    ):
        def elsewhere(_job):
            os.environ["TRANSFERSCOPE_HOME"] = str(tmp_path / "another")
            return False

        monkeypatch.setattr(units, "_share_cache", elsewhere)
        assert rank(few, executor=executor).to_json() == alone
        assert not (home / "features").exists()
        assert (tmp_path / "another" / "features").exists()

    def test_a_full_disk_on_a_worker_costs_its_cache_alone(self, few, executor, alone, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Given, "size", 7)
        monkeypatch.setattr("transferscope.runtime.store.Store._write", full)
        with pytest.warns(TransferscopeWarning, match="cannot be written .*No space left on device"):
            answer = json.loads(rank(few, executor=executor).to_json())
        assert answer["ranking"] == json.loads(alone)["ranking"]

    def test_a_process_begins_where_its_shard_says_and_ends_with_the_whole_answer(self, few, alone):
        assert rank(few, shard="3/3").to_json() == alone

    def test_what_another_process_is_at_work_on_comes_last(self, few, alone, monkeypatch):
        order, asked = [], []

        def score(self, source, title, score=Scorer.score):
            order.append(source.name)
            return score(self, source, title)

        def lease(self, kind, key, *, wait=True, lease=Store.lease):
            if kind == "sources":
                asked.append(wait)
                if len(asked) == 1:
                    return nullcontext(False)
            return lease(self, kind, key, wait=wait)

        monkeypatch.setattr(Scorer, "score", score)
        monkeypatch.setattr(Store, "lease", lease)
        assert rank(few).to_json() == alone
        assert order == ["warns", "broken", "a"]
        assert asked == [False, False, False, True]

    def test_failures_are_written_down_with_worker_and_traceback(self, few, executor, alone, home):
        answer = rank(few, executor=executor)
        assert [each.source for each in answer.failed] == ["broken"]
        (log,) = (home / "failures").iterdir()
        assert f"process {os.getpid()}" in log.read_text()
        assert 'raise RuntimeError("factory went wrong")' in log.read_text()

    def test_a_reference_for_each_source_comes_back_too(self, few, executor, tmp_path, monkeypatch):
        zoo = [entry("a", kwargs={"width": 4})]
        answer = rank(few, zoo, reference="own", samples=40, executor=executor)
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "of one process"))
        assert answer.to_json() == rank(few, zoo, reference="own", samples=40).to_json()

    def test_where_every_source_fails_it_is_said(self, few, executor):
        with pytest.raises(SourceError, match=r"No source could be ranked\. broken: .*factory went wrong"):
            rank(few, ZOO[2:], executor=executor)

    def test_a_reference_that_cannot_be_made_is_said_to_be_as_in_one_process(self, few, executor):
        Path("no.pt").write_bytes(b"nothing")
        with pytest.raises(TransferscopeError) as alone:
            rank(few, reference="no.pt")
        with pytest.raises(type(alone.value)) as elsewhere:
            rank(few, reference="no.pt", executor=executor)
        assert str(elsewhere.value).replace(os.getcwd() + "/", "") == str(alone.value)

    def test_on_and_executor_exclude_each_other(self, few, executor):
        with pytest.raises(InputError, match="`executor` alone"):
            rank(few, on="processes:2", executor=executor)


ASKED = {
    "rank": ("scratch reference", lambda *args, **options: rank(*args, samples=12, **options)),
    "measure": ("a truncate at depth 8", lambda images, zoo, **options: ts.measure(
        images, zoo, "measured", protocols=["truncate"], depths=[-1], samples_per_class=[2], seeds=1, device="cpu",
        progress=False, trust_code=True, **options,
    )),
    "compare": ("a with a, images 0 to 12", lambda images, zoo, **options: ts.compare_sources(
        "a", "a", images, zoo, samples=12, batch_size=8, device="cpu", progress=False, trust_code=True, **options,
    )),
}  # fmt: skip


@pytest.mark.parametrize("verb", ASKED)
def test_a_worker_that_cannot_see_the_images_is_named(verb, tmp_path):
    images = write(tmp_path / "data", "a*6", "b*6")

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, *call):
            if images.exists():
                images.rename(tmp_path / "moved")
            return super().submit(*call)

    unit, ask = ASKED[verb]
    said = rf"The worker .*process \d+\) cannot carry out {unit}.*: it cannot see the images .*same path on every"
    with Elsewhere() as executor, pytest.raises(TransferscopeError, match=said):
        ask(images, ZOO[:1], executor=executor)


@pytest.mark.parametrize("verb", ASKED)
def test_a_worker_without_the_device_of_the_process_that_asks_is_named(verb, tmp_path, monkeypatch):
    images = write(tmp_path / "data", "a*6", "b*6")

    def none(_device):
        raise DeviceError("no such device")

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, *call):
            monkeypatch.setattr("transferscope.arrays.backend.resolve_device", none)
            return super().submit(*call)

    said = (
        r"The worker .* cannot carry out .*: it has no 'cpu', which the process that asks runs on; give workers a GPU"
    )
    with Elsewhere() as executor, pytest.raises(TransferscopeError, match=said):
        ASKED[verb][1](images, ZOO[:1], executor=executor)


@pytest.mark.parametrize(
    ("device", "found", "sent", "spread"),
    [
        ("auto", "cuda:0", "cuda", True),
        ("cuda", "cuda:1", "cuda", True),  # which torch was told to prefer
        ("cuda:0", "cuda:0", "cuda:0", False),
        ("cuda:1", "cuda:1", "cuda:1", False),
        ("auto", "cpu", "cpu", False),
    ],
)
def test_a_gpu_that_was_named_is_taken_and_any_other_is_up_to_the_worker(few, monkeypatch, device, found, sent, spread):
    monkeypatch.setattr("transferscope.arrays.backend.resolve_device", lambda _device: torch.device(found))
    bench = Bench.set_up(RankRequest(target=few, zoo=ZOO[:1], device=device, samples=120, trust_code=True))
    assert (bench.packed().device, bench.spread) == (sent, spread)


class TestMeasure:
    def test_a_grid_is_that_of_one_process_and_goes_on(self, few, executor, tmp_path, monkeypatch):
        options = {
            "protocols": ("truncate", "finetune"), "depths": (-1,), "samples_per_class": (2,), "epochs": 1,
            "min_steps": 0, "device": "cpu", "progress": False, "trust_code": True, "test_samples": 40,
        }  # fmt: skip
        zoo = [ZOO[0]]
        ts.measure(few, zoo, tmp_path / "out", seeds=1, executor=executor, **options)
        elsewhere = ts.measure(few, zoo, tmp_path / "out", seeds=2, executor=executor, **options)
        monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "of one process"))
        alone = ts.measure(few, zoo, tmp_path / "alone", seeds=2, **options)
        same = [name for name in alone.runs if name not in ("seconds", "kwh", "kgco2e", "peak_memory")]
        assert json.loads(elsewhere.runs[same].to_json()) == json.loads(alone.runs[same].to_json())
        assert not (tmp_path / "out/.states").exists()


class TestCompare:
    OPTIONS: ClassVar = {"samples": 120, "batch_size": 8, "recipe": Recipe(epochs=1, min_steps=0), "device": "cpu",
               "progress": False, "trust_code": True}  # fmt: skip

    def compare(self, target, **options):
        return ts.compare_sources("a", "scratch", target, ZOO[:1], **self.OPTIONS, **options)

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, few, folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("TRANSFERSCOPE_HOME", str(folder / "home"))
            return cls().compare(few).to_json()

    @pytest.mark.parametrize("workers", [2, 7])
    def test_sums_of_shards_add_up_to_those_of_one_process_byte_for_byte(
        self, few, executor, alone, workers, home, folder, monkeypatch
    ):
        monkeypatch.setattr(Given, "size", workers)
        home.mkdir()
        shutil.copytree(folder / "home" / "reference", home / "reference")
        assert self.compare(few, executor=executor).to_json() == alone

    def test_a_last_shard_of_few_images_runs_the_networks_as_the_others_do(self, few, executor, monkeypatch):
        monkeypatch.setattr(Given, "size", 2)
        monkeypatch.setattr("transferscope.verbs.compare.networks._FEWEST_SPED_UP", 16)
        monkeypatch.setattr("transferscope.verbs.compare.elsewhere._BATCHES", 1)
        options = {**self.OPTIONS, "samples": 70, "batch_size": 32}
        zoo = [entry("a", checkpoint="a.safetensors"), entry("b", kwargs={"width": 4})]
        elsewhere = ts.compare_sources("a", "b", few, zoo, **options, executor=executor)
        assert elsewhere.to_json() == ts.compare_sources("a", "b", few, zoo, **options).to_json()

    def test_what_needs_all_images_together_is_one_unit(self, few, executor, monkeypatch, tmp_path):
        options = {"measures": ["linear_cka", "svcca"], "reduce": "mean"}
        monkeypatch.setattr(Given, "size", 3)
        elsewhere = self.compare(few, executor=executor, **options)
        assert elsewhere.to_json() == self.compare(few, **options).to_json()

    def test_a_source_that_cannot_be_loaded_is_said_to_be_as_in_one_process(self, few, executor):
        options = {**self.OPTIONS, "samples": 40}
        with pytest.raises(SourceError) as alone:
            ts.compare_sources("a", "broken", few, ZOO, **options)
        with pytest.raises(SourceError) as elsewhere:
            ts.compare_sources("a", "broken", few, ZOO, **options, executor=executor)
        assert str(elsewhere.value) == str(alone.value)
