"""The lines that figures are believed on: against numeric derivatives, simulated measurements and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from transferscope.runtime.links import CORRELATION, EXPLAINED, SHARE, link_of
from transferscope.runtime.metrics import METRICS

LINKS = {"share": SHARE, "explained": EXPLAINED, "correlation": CORRELATION}


def test_each_metric_has_its_link():
    found = {name: link_of(metric) for name, metric in METRICS.items()}
    assert found["r2"] is EXPLAINED
    assert found["spearman"] is CORRELATION
    assert {found[name] for name in ("accuracy", "balanced-accuracy", "mean-average-precision", "macro-f1")} == {SHARE}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_figures_go_onto_the_line_and_back(link):
    figures = np.array([0.05, 0.4, 0.8, 0.99])
    places = link.place(figures)
    assert link.back(places) == pytest.approx(figures)
    assert link.onto(figures, 10**9) == pytest.approx(places, abs=1e-4)
    step = 1e-6
    assert link.slope(places) == pytest.approx((link.back(places + step) - link.back(places - step)) / (2 * step))
    assert link.mean(places, 0 * places) == pytest.approx(figures)
    # An error of so many images is as wide on the line as beside it.
    errors = np.sqrt(link.noise(figures, 500)) * link.slope(link.onto(figures, 500))
    assert link.standard_error(figures, 500) == pytest.approx(errors, rel=0.01)


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_the_ends_are_finite(link):
    figures = np.array([max(link.lowest, -1e14), 1.0])
    assert np.isfinite(link.onto(figures, 20)).all()
    assert (link.noise(figures, 20) > 0).all()
    assert (link.standard_error(figures, 20) > 0).all()
    assert link.holds(1.0)
    assert not link.holds(1.01)
    assert not link.holds(np.nan)


@pytest.mark.parametrize(
    ("link", "measure", "noise"),
    [(EXPLAINED, r2_score, 0.5), (CORRELATION, lambda x, y: spearmanr(x, y).statistic, 1.0)],
)
def test_noise_is_at_least_what_measurements_of_gaussians_vary_by(link, measure, noise):
    rng, n = np.random.default_rng(0), 80
    places = []
    for _ in range(400):
        predicted = rng.normal(size=n)
        places.append(link.onto(measure(predicted + noise * rng.normal(size=n), predicted), n))
    assert 0.5 < np.var(places) / link.noise(link.back(np.mean(places)), n) < 1.15
