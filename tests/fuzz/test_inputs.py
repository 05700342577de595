"""Damaged, hostile and odd inputs end well or in a sentence: a few of each kind; many by HYPOTHESIS_PROFILE=thorough.

What fails says the kind and the seed: `attempt(kind, seed, folder)` in a debugger does the same again.
"""

import os
import random
import signal
import time

import click
import pytest
from faults.inputs import KINDS

from transferscope.errors import TransferscopeError

FEW, MANY = 24, 1500
SECONDS = 20
"""That an input may take on a busy machine; the table of faults says how long they take on a quiet one."""


def attempt(kind, seed, folder):
    """Try one input; return the sentence that refused it, None where nothing did."""
    folder.mkdir()
    run = KINDS[kind](random.Random(f"{kind} {seed}"), folder)
    try:
        run()
    except (TransferscopeError, click.ClickException) as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(3000)
def test_every_input_ends_well_or_in_a_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFERSCOPE_HOME", str(tmp_path / "home"))

    def too_slow(*_):
        raise AssertionError("it took too long")

    before = signal.signal(signal.SIGALRM, too_slow)
    sentences = []
    try:
        for seed in range(MANY if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else FEW):
            signal.alarm(SECONDS)
            start = time.perf_counter()
            try:
                sentences.append(attempt(kind, seed, tmp_path / str(seed)))
            except Exception as error:
                took = time.perf_counter() - start
                pytest.fail(f"{kind}, seed {seed}, after {took:.1f} s: {type(error).__name__}: {error}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    refused = [sentence for sentence in sentences if sentence is not None]
    assert all(sentence.strip() and "Traceback" not in sentence for sentence in refused)
    assert kind in ("cache entries", "leases") or refused, "nothing was refused: these inputs try nothing"
