"""The page of `speed.py`: ratios of each round, aims, exponents; and the zoo that it writes."""

import pytest
from speed import naive
from speed.naive import GIVEN, GROWTH, NAIVE, RANK, WORKLOADS

from transferscope import load_zoo


def rounds(name, way, seconds, gigabytes=1.0):
    return {f"{name} | {way} | {i}": {"seconds": each, "GB": gigabytes} for i, each in enumerate(seconds)}


def test_ratios_are_those_of_each_round():
    content = rounds("a", NAIVE, [10.0, 20.0, 40.0]) | rounds("a", RANK, [9.0, 10.0, 80.0])
    content |= rounds("a", GIVEN, [8.0, 16.0, 32.0])
    text = naive.page(content, WORKLOADS, {})
    assert "| rank | 10.0 | 0.90 | ≤ 1 | met | 1.00 GB |" in text
    assert "| rank, reference given | 16.0 | 0.80 | ≤ 0.75 | **missed** | 1.00 GB |" in text
    assert "Caltech" not in text


def test_too_much_memory_is_a_miss():
    content = rounds("a", NAIVE, [10.0]) | rounds("a", RANK, [5.0], 2.0) | rounds("a", GIVEN, [5.0])
    assert "| rank | 5.0 | 0.50 | ≤ 1 | **missed** | 2.00 GB |" in naive.page(content, WORKLOADS, {})


def test_growth_has_an_exponent():
    content = {}
    for size in (300, 600, 1200):
        content |= rounds(f"images {size}", NAIVE, [size / 100])
    text = naive.page(content, {}, {"images": GROWTH["images"]})
    assert "| naive loop | 3.0 | 6.0 | 12.0 | 1.00 |" in text


@pytest.mark.parametrize("workload", [*WORKLOADS.values(), *GROWTH["networks"]])
def test_the_zoo_has_as_many_sources_as_are_asked_for(tmp_path, workload):
    zoo = load_zoo(naive.write_zoo(tmp_path, tmp_path, workload))
    assert len(zoo) == workload.sources
