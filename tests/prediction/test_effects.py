"""How errors of candidates go together: shares of protocols, patterns, and covariances that are some."""

import numpy as np
import pytest
from beliefs import some_scores
from scipy.linalg import block_diag

from transferscope.prediction.covariates import Case, candidates
from transferscope.prediction.effects import (
    ACROSS,
    BASES,
    EFFECTS,
    covariance,
    loadings,
    network_columns,
    patterns,
    shares,
    variance,
)


@pytest.fixture
def rows():
    return candidates(some_scores(), Case(samples=200, probe=100, classes=4))


@pytest.fixture
def components():
    rng = np.random.default_rng(1)
    roots = {name: rng.normal(size=(5, 5)) for name in EFFECTS}
    return {name: root @ root.T for name, root in roots.items()}


def at(table, protocol, depth, source="s0"):
    wanted = (table["source"] == source) & (table["depth"] == depth) & (table["protocol"] == protocol)
    return int(np.flatnonzero(wanted)[0])


def test_what_is_the_same_by_two_names_has_the_same_shares(rows):
    for found in (shares(rows), loadings(rows)):
        named = dict(zip(BASES, found[at(rows, "reinit", 3)], strict=True))
        assert named == {"truncate": 1, "reinit": 0, "finetune": 0, "scratch": 0, "between": 0}
        np.testing.assert_allclose(found[at(rows, "defrost", 3)], found[at(rows, "truncate", 3)])


def test_a_partly_frozen_network_lies_between_fine_tuning_and_a_head(rows):
    found = shares(rows)[at(rows, "defrost", 1)]
    assert found[BASES.index("truncate")] == pytest.approx(1 / 9)
    assert found[BASES.index("finetune")] == pytest.approx(8 / 9)
    assert found[BASES.index("between")] == pytest.approx(4 * 1 / 3 * 2 / 3)
    reinit = loadings(rows)[at(rows, "reinit", 2)]
    np.testing.assert_allclose(reinit[:3], [4 / 9, 8 / 9, 5 / 9])


def test_a_covariance_is_symmetric_positive_and_its_diagonal_that_of_variance(rows, components):
    found = covariance(components, rows)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.linalg.eigvalsh(found).min() > -1e-9
    np.testing.assert_allclose(variance(components, rows), np.diag(found))


def test_a_covariance_with_other_rows_is_a_part_of_that_of_all(rows, components):
    first, last = rows.iloc[:5], rows.iloc[5:]
    np.testing.assert_allclose(covariance(components, first, last), covariance(components, rows)[:5, 5:])


def test_effects_of_known_networks_move_to_their_columns(rows, components):
    known = covariance(components, rows, known=["s1"])
    of_s1 = network_columns(rows) * (rows["source"] == "s1").to_numpy()[:, None]
    effects = block_diag(*(components[name] for name in ACROSS))
    np.testing.assert_allclose(known + of_s1 @ effects @ of_s1.T, covariance(components, rows))
    np.testing.assert_allclose(variance(components, rows, known=["s1"]), np.diag(known))


def test_scratch_shares_what_the_target_has_and_nothing_of_sources(rows):
    found = patterns(rows)
    for name in ("source", "network", "slope", "profile", "place"):
        assert not found[name][-1].any()
    assert (found["target"] == 1).all()
    assert found["cell"][-1, -1] == 1
    assert not found["cell"][-1, :-1].any()


def test_sources_share_depths_but_not_places(rows):
    found = patterns(rows)
    mine, other = at(rows, "truncate", 2), at(rows, "truncate", 2, "s1")
    assert found["profile"][mine, other] == 1
    assert found["place"][mine, other] == found["source"][mine, other] == 0
    near, far = at(rows, "truncate", 3), at(rows, "truncate", 1)
    assert found["profile"][near, far] == pytest.approx(np.exp(-(2 / 3) / 0.3))


def test_more_images_share_less(rows):
    more = candidates(some_scores(), Case(samples=2000, probe=100, classes=4))
    found = patterns(rows, more)
    assert found["size"][0, 0] == pytest.approx(np.exp(-np.log(10)))
    assert found["cell"][0, 0] == 0
