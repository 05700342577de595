"""Shared fixtures: the array namespaces that every pure function runs on, a quiet end, real data."""

import logging
import multiprocessing
import os
import warnings
from pathlib import Path

# Before anything reads it: every process of the run (-n) has a core of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import array_api_strict
import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("fast", max_examples=8, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("thorough", max_examples=200, deadline=None, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def _cupy():
    """CuPy if it is installed and has a GPU to work on, else None."""
    try:
        import cupy
    except ImportError:
        return None
    try:
        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    except cupy.cuda.runtime.CUDARuntimeError:
        return None


@pytest.fixture(scope="session", params=["numpy", "array_api_strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """Each array namespace in turn; array_api_strict stands in for CuPy where there is no GPU."""
    namespace = {"numpy": np, "array_api_strict": array_api_strict}.get(request.param) or _cupy()
    if namespace is None:
        pytest.skip("needs CuPy and a GPU")
    return namespace


@pytest.fixture
def quiet():
    """Put back what the command line changes: the package's logger, and how warnings are shown."""
    logger = logging.getLogger("transferscope")
    before = logger.level, logger.handlers, logger.propagate, warnings.showwarning
    with warnings.catch_warnings():
        yield
    logger.level, logger.handlers, logger.propagate, warnings.showwarning = before


@pytest.fixture
def undrawn(monkeypatch):
    """Save results with an empty page for all pictures, which take longer than all the rest."""
    monkeypatch.setattr("transferscope.results.saving._drawn", lambda _result: {"report.html": b""})


@pytest.fixture
def bare_page(monkeypatch):
    """Save rankings with their page, but without its pictures."""
    monkeypatch.setattr("transferscope.report.plot.figures", lambda *_args, **_options: {})


@pytest.fixture
def forked(monkeypatch):
    """Start the processes of `jobs` from a server that has imported torch once for all of them.

    Spawned as ever, where each imports it, they are in test_streams.py and test_measure.py of tests/cli.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transferscope.verbs.measure.measure"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _method: context)


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone, which `DistributedDataParallel` asks for."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("needs torch with gloo")
    distributed.init_process_group("gloo", init_method=(tmp_path / "group").as_uri(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope="session")
def real_folder():
    """The folder with real data, networks and golden values, named by TRANSFERSCOPE_REAL."""
    folder = os.environ.get("TRANSFERSCOPE_REAL")
    if not folder:
        pytest.skip("needs TRANSFERSCOPE_REAL, the folder with real data")
    return Path(folder)
