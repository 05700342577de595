"""What is believed before and after evidence, against plain Gaussian conditioning, and which pilot comes next."""

import numpy as np
import pytest
import scipy.stats
from beliefs import some_scores
from scipy.special import expit

from transferscope.errors import InputError
from transferscope.prediction import pilots
from transferscope.prediction.belief import Belief, reference
from transferscope.prediction.calibration import Calibration, Chosen, Term
from transferscope.prediction.covariates import Case, candidates
from transferscope.prediction.effects import EFFECTS, covariance
from transferscope.prediction.observation import Observation
from transferscope.prediction.pilots import Option, choose_pilot, expected_gains, narrowing
from transferscope.runtime.links import expected_share

CASE = Case(samples=200, probe=100, classes=4, scratch_accuracy=0.6, scratch_held_out=20)
TERMS = (Term(("truncate", "finetune", "reinit", "scratch"), ()), Term(("truncate",), ("head",)))


NOT_CHOSEN = Chosen(0.0, 1.0)


def known(chosen=NOT_CHOSEN):
    rng = np.random.default_rng(2)
    roots = {name: 0.2 * rng.normal(size=(5, 5)) for name in EFFECTS}
    components = {name: root @ root.T for name, root in roots.items()}
    factor = np.array([[0.3, 0.0], [0.1, 0.2]])
    return Calibration(TERMS, np.array([0.4, 1.1]), factor, components, (0.01, 0.5), chosen, "nothing")


def belief(*observations, case=CASE, **options):
    return Belief(candidates(some_scores(), case), case, known(**options), observations)


def seen(accuracy=0.9, **changes):
    given = {"source": "s0", "depth": 3, "protocol": "finetune", "samples": 150, "accuracy": accuracy, "tested": 80}
    return Observation(**{**given, **changes})


def test_evidence_changes_belief_as_conditioning_a_gaussian_does():
    prior, two = belief(), (seen(), seen(0.4, source="s1", depth=1, protocol="truncate", draws=3))
    after = prior.given(two)
    rows, observed = prior.rows, after.seen
    design, columns = (prior.calibration.design(each) for each in (rows, observed))
    factor = prior.calibration.factor
    uncertain = factor @ factor.T
    joint = design @ uncertain @ columns.T + covariance(prior.calibration.components, rows, observed)
    own = columns @ uncertain @ columns.T + covariance(prior.calibration.components, observed)
    # A draw of 150 images of 4 classes, and the number of images tested on, half a hit and half a miss added.
    draw = 0.01 * np.exp(-0.5 * np.log(150 / 4 / 20))
    shares = np.array([(0.9 * 80 + 0.5) / 81, (0.4 * 80 + 0.5) / 81])
    own += np.diag(draw / np.array([1, 3]) + 1 / (81 * shares * (1 - shares)))
    surprise = np.log(shares / (1 - shares)) - columns @ prior.calibration.coefficients
    np.testing.assert_allclose(after.mean, prior.mean + joint @ np.linalg.solve(own, surprise))
    np.testing.assert_allclose(after.variance, prior.variance - np.diag(joint @ np.linalg.solve(own, joint.T)))
    everything = after.covariance(rows, rows)
    np.testing.assert_allclose(np.diag(everything), after.variance, atol=1e-12)
    assert np.linalg.eigvalsh(everything).min() > -1e-9


def test_evidence_one_after_the_other_is_evidence_at_once():
    one, other = seen(), seen(0.3, depth=1)
    np.testing.assert_allclose(belief().given([one]).given([other]).mean, belief(one, other).mean)


def test_belief_for_another_number_of_images_is_what_one_asks_for_that_many_believes():
    # The draw of the observed images is counted by classes, which stay.
    more = Case(samples=800, probe=100, classes=4, scratch_accuracy=0.6, scratch_held_out=20)
    moved, made = belief(seen()).trained_on(800), belief(seen(), case=more)
    np.testing.assert_allclose(moved.mean, made.mean)
    np.testing.assert_allclose(moved.variance, made.variance)
    assert not np.allclose(moved.mean, belief(seen()).mean)
    with pytest.raises(InputError, match="samples"):
        belief().trained_on(0)


def test_the_same_transfer_by_two_names_has_one_expectation():
    rows, mean = belief(seen()).rows, belief(seen()).mean
    whole = rows[(rows["depth"] == 3) & (rows["source"] == "s0")].index
    by_protocol = dict(zip(rows.loc[whole, "protocol"], mean[whole], strict=True))
    assert by_protocol["reinit"] == pytest.approx(by_protocol["truncate"])
    assert by_protocol["defrost"] == pytest.approx(by_protocol["truncate"])


def test_a_difference_knows_what_both_share():
    now = belief()
    everything = now.covariance(now.rows, now.rows)
    spread = everything[0, 0] + everything[5, 5] - 2 * everything[0, 5]
    expected = scipy.stats.norm.cdf((now.mean[0] - now.mean[5]) / np.sqrt(spread))
    assert now.better(np.array([0]), 5)[0] == pytest.approx(expected)
    assert now.better(np.array([5]), 0)[0] == pytest.approx(1 - expected)


def test_what_is_certainly_alike_is_within_any_difference():
    now = belief()
    whole = now.rows[(now.rows["depth"] == 3) & (now.rows["source"] == "s0")]
    one, other = (int(whole.index[whole["protocol"] == name][0]) for name in ("reinit", "truncate"))
    assert now.within(np.array([one]), other, 0.001)[0] == pytest.approx(1)
    assert now.within(np.array([0]), 5, 0.01)[0] < 0.5
    assert now.within(np.array([0]), 5, 1.0)[0] > 0.99


def test_probabilities_of_being_best_add_up_and_follow_the_order():
    now = belief()
    found = now.probability_best()
    assert found.sum() == pytest.approx(1)
    two = now.probability_best(np.array([0, 5]))
    assert two[0] == pytest.approx(now.better(np.array([0]), 5)[0], abs=0.02)


def test_an_interval_is_that_of_a_measured_transfer_and_wider_for_what_was_chosen():
    now = belief()
    ends = now.expected()
    spread = now.variance + 0.01 * np.exp(-0.5 * now.rows["log_per_class"])
    np.testing.assert_allclose(ends["upper"], expit(now.mean + scipy.stats.norm.ppf(0.9) * np.sqrt(spread)))
    corrected = belief(chosen=Chosen(-0.2, 1.5)).expected(chosen=True)
    assert (corrected["expected_accuracy"] < ends["expected_accuracy"]).all()
    assert (corrected["lower"] < ends["lower"]).all()


def test_an_expected_accuracy_is_the_mean_of_a_logistic_function():
    rng = np.random.default_rng(0)
    for middle, spread in ((0.0, 1.0), (1.5, 0.5), (-2.0, 2.0)):
        drawn = expit(middle + np.sqrt(spread) * rng.standard_normal(200_000)).mean()
        assert expected_share(np.array(middle), np.array(spread)) == pytest.approx(drawn, abs=0.005)


def test_what_is_believed_from_scratch_is_of_the_very_network_that_was_measured():
    measured = Observation(
        source="", depth=0, protocol="scratch", samples=200, accuracy=0.9, tested=10**6, draws=10**6, origin="reference"
    )
    after = belief(measured)
    assert expit(after.mean[-1]) == pytest.approx(0.9, abs=1e-3)
    assert after.variance[-1] < 1e-4
    assert after.variance[0] > 0.01


def test_the_scratch_network_is_evidence_of_its_own():
    (found,) = reference(CASE)
    assert (found.origin, found.samples, found.tested, found.accuracy) == ("reference", 80, 20, 0.6)
    assert reference(Case(samples=10, probe=10, classes=2)) == ()


def test_an_observation_of_no_candidate_is_named():
    with pytest.raises(InputError, match="finetune of 's9' at depth 3; leave it out"):
        belief().given([seen(source="s9")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": 1.2}, "`accuracy` to be between 0 and 1, but got 1.2"),
        ({"protocol": "finetun"}, "`protocol` to be one of .*, but got 'finetun' .did you mean 'finetune'"),
        ({"tested": 0}, "`tested` to be a whole number of at least 1"),
        ({"origin": "hearsay"}, "`origin` to be one of"),
    ],
)
def test_an_observation_that_is_none_raises(changes, message):
    with pytest.raises(InputError, match=message):
        seen(**changes)


def test_a_standard_error_is_binomial_and_never_nothing():
    assert seen(0.5, tested=99).standard_error == pytest.approx(np.sqrt(0.25 / 99))
    assert seen(1.0).standard_error > 0


def options(seconds=1.0, **changes):
    given = {"samples": 150, "tested": 100, "seconds": seconds}
    ways = [("s0", 3, "finetune"), ("s1", 3, "finetune"), ("s0", 1, "truncate"), ("s1", 2, "truncate")]
    return [
        Option(source=source, depth=depth, protocol=protocol, **{**given, **changes})
        for source, depth, protocol in ways
    ]


def test_a_gain_is_what_choosing_after_the_measurement_brings_on_average():
    now, ways = belief(), options()
    gains = expected_gains(now, ways)
    rng = np.random.default_rng(3)
    row = now.rows_of([ways[0]])
    middle, spread = now.posterior(row)
    noise = now.noise([ways[0]], expit(middle))
    moved = now.covariance(now.rows, row)[:, 0] / np.sqrt(spread[0] + noise[0])
    left = now.variance - moved**2
    drawn = np.array([expected_share(now.mean + moved * z, left) for z in rng.standard_normal(20_000)])
    assert gains[0] == pytest.approx(drawn.max(axis=1).mean() - drawn.mean(axis=0).max(), rel=0.1)
    assert (gains >= 0).all()


def test_the_quicker_of_two_equal_pilots_is_run_and_none_where_nothing_is_to_be_gained():
    now = belief()
    one = options()[0]
    slow = Option(source="s0", depth=3, protocol="finetune", samples=150, tested=100, seconds=5.0)
    best, rate = choose_pilot(now, [slow, one])
    assert best == 1
    assert rate == pytest.approx(expected_gains(now, [one])[0])
    assert choose_pilot(now, []) is None
    certain = now.given([seen(0.99, tested=10**6), seen(0.2, source="s1", tested=10**6)])
    assert choose_pilot(certain, [one]) is None


def test_supposing_a_pilot_is_believing_that_it_measured_what_is_expected():
    now, ways = belief(), options()
    gains = pilots._Gains(now, ways, None)
    for place in (0, 3):
        gains.suppose(place)
        expected = expit(now.posterior(now.rows_of([ways[place]]))[0][0])
        now = now.given([pilots._measured(now, ways[place], expected)])
    # Half a hit and half a miss that are added to what is observed move it a little.
    np.testing.assert_allclose(gains.expected(), expected_gains(now, ways), rtol=0.05)


def test_pilots_narrow_the_interval_of_the_best_and_no_time_narrows_nothing():
    now = belief()
    before, after = narrowing(now, options(), 10.0)
    assert after < before
    assert narrowing(now, options(), 0.5) == (before, before)
