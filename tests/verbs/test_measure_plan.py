"""The grid of runs: what is in it, in which order, and what the command line may ask for."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.cli.parsing import parse_depths, parse_protocols, parse_sizes
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.verbs.measure.plan import group, plan
from transferscope.verbs.running.run import LAYER_SETS, PROTOCOLS, Run

NET, OTHER = ("stem", "block1", "block2"), ("conv", "pool")


def cuts_of(protocol, layers=NET, depths="all"):
    runs = plan({"net": layers}, [protocol], [1], target="birds", seeds=1, depths=depths)
    assert {(run.source, run.target, run.protocol, run.depths) for run in runs} == {
        ("net", "birds", protocol, len(layers))
    }
    return [(run.depth, run.layer) for run in runs]


@pytest.mark.parametrize("protocol", ["truncate", "svm", "nearest_mean", "toptuning", "reinit", "finetune"])
def test_a_network_is_cut_after_each_stage(protocol):
    assert cuts_of(protocol) == [(1, "stem"), (2, "block1"), (3, "block2")]


def test_protocols_without_a_cut_have_their_own_depths():
    assert cuts_of("defrost") == [(0, ""), (1, "stem"), (2, "block1"), (3, "block2")]
    assert cuts_of("surgical") == [(3, "block2")]
    assert cuts_of("scratch") == [(0, "")]
    assert cuts_of("fne") == [(3, "all"), (3, "upper 75%"), (3, "upper 50%"), (3, "upper 25%")]
    for protocol in ("surgical", "scratch", "fne"):
        assert cuts_of(protocol, depths=[2]) == cuts_of(protocol)


@pytest.mark.parametrize(
    ("depths", "expected"),
    [([2], [2]), ([-1], [3]), ([-3], [1]), ([-1, 1, 3], [1, 3]), ([0, 2], [2])],
)
def test_depths_are_chosen_as_in_a_list_of_the_cuts(depths, expected):
    assert [depth for depth, _ in cuts_of("truncate", depths=depths)] == expected


def test_depth_0_is_for_defrosting():
    assert cuts_of("defrost", depths=[0]) == [(0, "")]
    with pytest.raises(InputError, match="one above 0 for truncate"):
        plan({"net": NET}, ["scratch", "truncate"], [1], target="birds", seeds=1, depths=[0])


@pytest.mark.parametrize("depth", [4, -4])
def test_a_depth_that_no_source_has_is_refused_and_one_that_some_lack_is_left_out(depth):
    with pytest.raises(InputError, match=rf"`depths` .* at most 3 in these sources.* but got {depth}$"):
        cuts_of("truncate", depths=[depth])
    sources = {"net": NET, "deep": (*NET, "block3")}
    with pytest.warns(TransferscopeWarning, match=f"Depth {depth} is left out for net"):
        runs = plan(sources, ["defrost"], [1], target="birds", seeds=1, depths=[depth])
    assert [(run.source, run.depth) for run in runs] == [("deep", 4 if depth > 0 else 1)]


def test_no_sources_are_no_runs():
    assert plan({}, ["truncate"], [1], target="birds", seeds=1, depths=[3]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocols": ["truncated"]}, r"got 'truncated' \(did you mean 'truncate'\?\)"),
        ({"protocols": []}, "at least one of nearest_mean"),
        ({"sizes": [1, 0]}, "`samples_per_class` to be at least 1, but got 1, 0"),
        ({"sizes": []}, "`samples_per_class` .* none"),
        ({"seeds": 0}, "`seeds` to be at least 1, but got 0"),
    ],
)
def test_what_cannot_be_planned_is_named(options, message):
    with pytest.raises(InputError, match=message):
        plan(
            **{"sources": {"net": NET}, "protocols": ["truncate"], "sizes": [1], "target": "birds", "seeds": 1}
            | options
        )


def whole_grid(seeds=2):
    return plan({"net": NET, "other": OTHER}, list(PROTOCOLS), [5, 1], target="birds", seeds=seeds)


def test_the_grid_holds_every_combination_once():
    runs = whole_grid()
    assert len({run.identity for run in runs}) == len(runs)
    # A size and a seed of a network with 3 stages: six protocols at each, defrosting at 4 depths, 4 + 1 + 1 others.
    assert Counter(run.source for run in runs) == {"net": 4 * (6 * 3 + 4 + 6), "other": 4 * (6 * 2 + 3 + 6)}
    assert {(run.samples_per_class, run.seed) for run in runs} == {(1, 0), (1, 1), (5, 0), (5, 1)}


def test_the_order_is_source_by_source_and_cheap_before_dear():
    runs = whole_grid()
    order = [
        (run.source, PROTOCOLS[run.protocol].kind == "trained", run.samples_per_class, run.seed, run.depth)
        for run in runs
        if run.protocol in ("svm", "finetune")
    ]
    assert order == sorted(order)
    # It does not depend on the order in which they are asked for.
    sources = {"net": NET, "other": OTHER}
    assert plan(sources, list(PROTOCOLS)[::-1], [1, 5, 1], target="birds", seeds=2) == runs


@pytest.mark.parametrize("together", [False, True])
def test_groups_hold_every_run_once_and_only_what_shares_work(together):
    runs = whole_grid(seeds=3)
    groups = group(runs, together=together)
    assert Counter(run for members in groups for run in members) == Counter(runs)
    for members in groups:
        assert len({run.source for run in members}) == 1
        if PROTOCOLS[members[0].protocol].kind == "trained":
            assert len({run.identity[:-1] for run in members}) == 1
            assert [run.seed for run in members] == ([0, 1, 2] if together else [members[0].seed])
        else:
            assert {PROTOCOLS[run.protocol].kind for run in members} == {"features", "embedding"}
    assert len([g for g in groups if PROTOCOLS[g[0].protocol].kind != "trained"]) == 2


@given(st.lists(st.integers(1, 10**6) | st.just("all"), min_size=1, unique=True), st.sampled_from([",", ", ", " ,"]))
def test_sizes_are_read_as_they_are_written(sizes, comma):
    assert parse_sizes(comma.join(map(str, sizes))) == tuple(sizes)


@pytest.mark.parametrize("text", ["", "1,,2", "1,", "0", "-1", "1.5", "ten", "1_0", "٣", "All"])
def test_wrong_sizes_are_named(text):
    with pytest.raises(InputError, match=r"`samples_per_class` .*1,2,5,all.* but got"):
        parse_sizes(text)


def test_depths_are_read_as_they_are_written():
    assert parse_depths(" all") == "all"
    assert parse_depths("3,-1, 0,3") == (3, -1, 0)
    for text in ("all,1", "1;2", "", "1.0", "--1"):
        with pytest.raises(InputError, match=r"`depths` .*1,3,-1.* but got"):
            parse_depths(text)


def test_protocols_are_read_as_they_are_written():
    assert parse_protocols("truncate, fne,truncate") == ("truncate", "fne")
    with pytest.raises(InputError, match=r"got 'fnee' \(did you mean 'fne'"):
        parse_protocols("truncate,fnee")
    with pytest.raises(InputError, match="a list with commas like truncate,reinit, but got 'truncate,'"):
        parse_protocols("truncate,")


def test_a_run_is_told_apart_by_everything_but_the_target_and_the_stages_in_all():
    run = Run("net", "birds", "truncate", 1, 3, "stem", 5, 0)
    assert run.identity == ("net", "truncate", 1, "stem", 5, 0)
    assert len(LAYER_SETS) == len(set(LAYER_SETS))


def test_the_plan_is_there_at_once():
    code = (
        "import sys, transferscope.verbs.measure.plan\n"
        "loaded = {'torch', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
