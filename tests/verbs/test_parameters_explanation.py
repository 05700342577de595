"""What goes with transferability: planted effects, scikit-learn's and scipy's answers, and bad tables."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ConstantInputWarning, spearmanr
from sklearn.linear_model import LinearRegression

from transferscope.errors import InputError
from transferscope.verbs.parameters.explanation import COMPANIONS_OF_RUNS, explain, rank_correlations

EFFECTS = {"samples": -0.5, "frechet": -2.0, "within": 0.0, "between": 1.5}


def runs(n_targets=8, sizes=(5, 10, 20), *, seeds=2, noise=0.05, sources=("a",), criteria=("epochs",), seed=0):
    """Return runs whose T is exp(effects · predictors + noise)."""
    rng = np.random.default_rng(seed)
    rows = []
    for source in sources:
        for target in range(n_targets):
            frechet, mmd, within, between = rng.uniform(0, 1, 4)
            for size in sizes:
                for draw in range(seeds):
                    for criterion in criteria:
                        samples = size * (2 + target % 3)
                        ln = EFFECTS["samples"] * math.log(samples) + EFFECTS["frechet"] * frechet
                        ln += EFFECTS["between"] * between + noise * rng.normal()
                        rows.append({
                            "source": source, "target": f"t{target}", "samples_per_class": size, "samples": samples,
                            "seed": draw, "criterion": criterion, "transferability": math.exp(ln), "frechet": frechet,
                            "mmd": mmd, "within": within, "between": between, "gradient_snr": rng.normal(),
                        })  # fmt: skip
    return pd.DataFrame(rows)


def layers(n_targets=5, sizes=(5, 10), *, seeds=2, n_layers=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for target in range(n_targets):
        for size in sizes:
            for draw in range(seeds):
                snr = rng.normal(size=n_layers)
                for depth in range(1, n_layers + 1):
                    rows.append({
                        "source": "a", "target": f"t{target}", "samples_per_class": size, "seed": draw,
                        "criterion": "epochs", "depth": depth, "transferability": snr[depth - 1] + rng.normal(),
                        "gradient_snr": snr[depth - 1], "relative_change": rng.normal(), "cka": rng.normal(),
                    })  # fmt: skip
    return pd.DataFrame(rows)


# --- the regression -----------------------------------------------------------------------------------------------


def test_planted_effects_are_found():
    data = runs()
    table = explain(data).set_index("predictor")
    cells = data.groupby(["target", "samples_per_class"])[["samples", "frechet", "within", "between"]].mean()
    deviations = cells.assign(samples=np.log(cells["samples"])).std(ddof=0)
    for column, effect in EFFECTS.items():
        row = table.loc["log_samples" if column == "samples" else column]
        assert row["coefficient"] == pytest.approx(effect * deviations[column], abs=0.03)
        assert row["lower"] < row["coefficient"] < row["upper"]
        assert row["upper"] - row["lower"] < 0.3
    assert np.all(table["r_squared"] > 0.98)
    assert table[["n_targets", "n_rows", "runs_left_out"]].drop_duplicates().to_numpy().tolist() == [[8, 24, 0]]
    assert explain(data).attrs["reason"] == ""


def test_coefficients_and_r_squared_are_those_of_scikit_learn():
    data = runs(noise=1.0)
    cells = data.assign(y=np.log(data["transferability"]), log_samples=np.log(data["samples"]))
    cells = cells.groupby(["target", "samples_per_class"])[["y", "log_samples", "mmd", "within"]].mean()
    x = (cells - cells.mean()) / cells.std(ddof=0)
    theirs = LinearRegression().fit(x[["log_samples", "mmd", "within"]], cells["y"])
    table = explain(data, predictors=("log_samples", "mmd", "within"), draws=10)
    np.testing.assert_allclose(table["coefficient"], theirs.coef_, rtol=1e-10)
    expected = theirs.score(x[["log_samples", "mmd", "within"]], cells["y"])
    np.testing.assert_allclose(table["r_squared"], expected, rtol=1e-10)


def test_the_interval_draws_whole_targets():
    """The same draws, each fitted by least squares over its rows as they come."""
    data, names = runs(n_targets=6, noise=0.5, seeds=1), ["log_samples", "frechet"]
    data["log_samples"] = np.log(data["samples"])
    x = data[names].to_numpy()
    design = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
    y, target = np.log(data["transferability"].to_numpy()), data["target"].to_numpy()
    fits = []
    for chosen in np.random.default_rng(3).integers(6, size=(300, 6)):
        rows = np.concatenate([np.flatnonzero(target == f"t{one}") for one in chosen])
        fit, _, rank, _ = np.linalg.lstsq(design[rows], y[rows])
        if rank == 3:
            fits.append(fit)
    table = explain(data.drop(columns="log_samples"), predictors=names, draws=300, seed=3)
    expected = np.percentile(fits, [2.5, 97.5], axis=0)[:, 1:].T
    np.testing.assert_allclose(table[["lower", "upper"]], expected, rtol=1e-8)
    assert set(table["draws_left_out"]) == {300 - len(fits)}


def test_draws_that_cannot_tell_the_predictors_apart_are_counted_and_too_many_leave_no_interval():
    """Of four targets a draw holds all four in 4!/4⁴ = 9 % of cases, which three predictors of targets need."""
    table = explain(runs(n_targets=4), draws=2000)
    assert table["draws_left_out"].iloc[0] == pytest.approx(2000 * (1 - 24 / 256), abs=60)
    assert table[["lower", "upper"]].isna().all(axis=None)
    assert np.all(np.isfinite(table["coefficient"]))
    assert np.isfinite(explain(runs(n_targets=4), predictors=["log_samples"])["lower"]).all()


def test_infinite_and_missing_transferability_is_left_out_and_counted():
    data = runs(seeds=3)
    whole = explain(data[data["seed"] < 2], draws=50)
    data.loc[data["seed"] == 2, "transferability"] = math.inf
    data.loc[data.index[2], "transferability"] = math.nan  # of seed 2 too
    table = explain(data, draws=50)
    assert set(table["runs_left_out"]) == {24}
    pd.testing.assert_frame_equal(table.assign(runs_left_out=0), whole.assign(runs_left_out=0), check_dtype=False)


def test_predictors_that_are_unknown_or_do_not_vary_are_left_out_and_named():
    data = runs().assign(frechet=math.nan, within=0.1)
    table = explain(data, draws=50)
    assert table["predictor"].tolist() == ["log_samples", "between"]
    assert set(table["predictors_left_out"]) == {"frechet,within"}
    data.loc[data["target"] == "t3", "between"] = math.nan
    assert set(explain(data, draws=50)["n_targets"]) == {7}


def test_another_response():
    data = runs().assign(relative_change=lambda table: table["transferability"] ** -2)
    expected, found = explain(data, draws=50), explain(data, response="relative_change", draws=50)
    np.testing.assert_allclose(found["coefficient"], -2 * expected["coefficient"], rtol=1e-9, atol=1e-12)


def test_a_response_without_variance_has_no_r_squared():
    table = explain(runs().assign(transferability=2.0), draws=20)
    np.testing.assert_allclose(table["coefficient"], 0, atol=1e-14)
    assert table["r_squared"].isna().all()


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        (runs(3), {}, "a (epochs): only 3 of at least 4 targets that are needed have a finite response"),
        (runs(6, sizes=[5]), {}, "a (epochs): 6 targets × sizes, and at least 7 are needed for 4 predictors"),
        (runs(6).assign(frechet=1.0), {"predictors": ["frechet"]}, "a (epochs): no predictor varies"),
        (
            runs(6).assign(mmd=lambda table: 2 * table["frechet"]),
            {"predictors": ["frechet", "mmd"]},
            "a (epochs): frechet, mmd are linearly dependent; name fewer `predictors`",
        ),
        (runs(0), {}, ""),
    ],
)
def test_what_cannot_be_fitted_has_no_rows_but_a_reason(data, options, reason):
    data = data if len(data) else runs(1).iloc[:0]
    table = explain(data, **options)
    assert len(table) == 0
    assert list(table.columns[:6]) == ["source", "criterion", "predictor", "coefficient", "lower", "upper"]
    assert table.attrs["reason"] == reason


def test_each_source_and_criterion_has_its_own_rows_and_the_same_answer_as_alone():
    data = runs(sources=("a", "b", "c"), criteria=("epochs", "steps"))
    data = data[(data["source"] != "b") | data["target"].isin(["t0", "t1"])]
    table = explain(data, draws=50)
    assert list(table.groupby(["source", "criterion"], sort=False).groups) == [
        ("a", "epochs"), ("a", "steps"), ("c", "epochs"), ("c", "steps"),
    ]  # fmt: skip
    assert table.attrs["reason"].startswith("b (epochs), b (steps): only 2 of at least 4 targets")
    alone = explain(data[(data["source"] == "c") & (data["criterion"] == "steps")], draws=50)
    pd.testing.assert_frame_equal(table.iloc[-4:].reset_index(drop=True), alone)
    pd.testing.assert_frame_equal(explain(data, draws=50), table)


@pytest.mark.parametrize("column", ["samples", "transferability", "frechet"])
def test_a_table_without_a_column_is_an_error(column):
    with pytest.raises(InputError, match=f"Expected `runs` to have the columns .*, but it lacks {column}; "):
        explain(runs(4).drop(columns=column))


# --- rank correlations --------------------------------------------------------------------------------------------


def row(table, level, companion):
    found = table[(table["level"] == level) & (table["companion"] == companion)]
    assert len(found) == 1
    return found.iloc[0]


def plain(x, y):
    """scipy's, of the pairs that are known; NaN for fewer than three, or constants."""
    known = ~(np.isnan(x) | np.isnan(y))
    if known.sum() < 3:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return spearmanr(x[known], y[known]).statistic


def holes(table, columns, seed=5):
    """Set some entries to NaN, and some to each other so that there are ties."""
    rng, table = np.random.default_rng(seed), table.copy()
    for column in columns:
        values = table[column].to_numpy(float).copy()
        values[rng.random(len(values)) < 0.2] = math.nan
        values[rng.random(len(values)) < 0.2] = 0.25
        table[column] = values
    return table


@pytest.mark.parametrize("companion", ["gradient_snr", "relative_change", "cka", "depth"])
def test_over_layers_it_is_the_mean_of_scipys_over_runs(companion):
    data = holes(layers(n_layers=5), ["transferability", "gradient_snr", "relative_change", "cka"])
    expected = [
        plain(own["transferability"].to_numpy(), own[companion].to_numpy(float))
        for _, own in data.groupby(["target", "samples_per_class", "seed"])
    ]
    found = row(rank_correlations(data, runs(4)), "layers within a run", companion)
    assert found["spearman"] == pytest.approx(np.nanmean(expected))
    assert found["n"] == np.sum(~np.isnan(expected))
    assert found["lower"] <= found["spearman"] <= found["upper"]
    assert found["before_transfer"] == (companion in ("gradient_snr", "depth"))


@pytest.mark.parametrize("companion", COMPANIONS_OF_RUNS)
def test_over_targets_it_is_the_mean_of_scipys_over_sizes(companion):
    data = holes(runs(7, seeds=1, noise=1.0), [companion, "transferability"])
    sizes = [plain(own["transferability"], own[companion]) for _, own in data.groupby("samples_per_class")]
    table = rank_correlations(layers(), data, seed=4, draws=100)
    found = row(table, "runs", companion)
    assert found["spearman"] == pytest.approx(np.mean(sizes))
    assert found["before_transfer"]
    pairs = data[data[companion].notna() & data["transferability"].notna()]
    assert found["n"] == pairs["target"].nunique()
    # The bootstrap, a draw at a time.
    names = sorted(pairs["target"].unique())
    drawn = []
    for chosen in np.random.default_rng(4).integers(len(names), size=(100, len(names))):
        drawn_sizes = [
            plain(*(own.set_index("target").loc[[names[i] for i in chosen], c] for c in ("transferability", companion)))
            for _, own in data.groupby("samples_per_class")
        ]
        if not np.all(np.isnan(drawn_sizes)):
            drawn.append(np.nanmean(drawn_sizes))
    np.testing.assert_allclose([found["lower"], found["upper"]], np.percentile(drawn, [2.5, 97.5]), atol=1e-12)


def test_the_number_of_images_is_compared_within_each_target():
    data = runs(5, sizes=(5, 10, 20, 40), noise=1.0, seeds=1)
    targets = [plain(own["transferability"], own["samples"].astype(float)) for _, own in data.groupby("target")]
    found = row(rank_correlations(layers(), data, seed=1, draws=100), "runs", "samples")
    assert found["spearman"] == pytest.approx(np.mean(targets))
    assert found["n"] == 5
    drawn = np.array(targets)[np.random.default_rng(1).integers(5, size=(100, 5))].mean(1)
    np.testing.assert_allclose([found["lower"], found["upper"]], np.percentile(drawn, [2.5, 97.5]))


def test_planted_orders_are_found():
    data = runs(12, noise=0.0).assign(frechet=lambda table: -table["between"])
    data["transferability"] = np.exp(-data["frechet"]) / data["samples_per_class"]
    table = rank_correlations(layers().assign(cka=lambda each: each["transferability"] ** 3), data)
    assert tuple(row(table, "runs", "samples")[["spearman", "lower", "upper"]]) == pytest.approx((-1, -1, -1))
    assert tuple(row(table, "runs", "frechet")[["spearman", "lower", "upper"]]) == pytest.approx((-1, -1, -1))
    assert row(table, "runs", "between")["spearman"] == pytest.approx(1)
    assert row(table, "layers within a run", "cka")["spearman"] == pytest.approx(1)
    assert row(table, "layers within a run", "gradient_snr")["lower"] > 0.2
    assert row(table, "layers within a run", "relative_change")["lower"] < 0.2


def test_infinite_transferability_ranks_above_all_others():
    few = layers(3, sizes=[5], seeds=1, n_layers=4).assign(transferability=[4.0, 3.0, 2.0, 1.0] * 3)
    few.loc[few["depth"] == 4, "transferability"] = math.inf
    found = row(rank_correlations(few, runs(4)), "layers within a run", "depth")
    assert found["spearman"] == pytest.approx(spearmanr([1, 2, 3, 4], [3, 2, 1, 4]).statistic)
    data = runs(4, sizes=[5], seeds=2, noise=0)
    data.loc[(data["target"] == "t1") & (data["seed"] == 0), "transferability"] = math.inf
    means = data.groupby("target")[["transferability", "frechet"]].mean()
    assert means.loc["t1", "transferability"] == math.inf
    found = row(rank_correlations(layers(), data), "runs", "frechet")
    assert found["spearman"] == pytest.approx(spearmanr(means["transferability"].rank(), means["frechet"]).statistic)


def test_fewer_than_three_points_are_nan_and_no_error():
    table = rank_correlations(layers(2, n_layers=2), runs(2, sizes=[5, 10]))
    assert table[["spearman", "lower", "upper"]].isna().all(axis=None)
    assert set(table["n"]) == {0}
    assert len(table) == 4 + 6


def test_two_targets_give_a_correlation_over_layers_but_no_interval():
    found = row(rank_correlations(layers(2), runs(4)), "layers within a run", "gradient_snr")
    assert math.isfinite(found["spearman"])
    assert math.isnan(found["lower"])
    assert found["n"] == 8


def test_constant_and_missing_companions_are_nan():
    table = rank_correlations(layers().assign(cka=math.nan), runs(6).assign(mmd=math.nan, within=1.0))
    for level, companion in (("layers within a run", "cka"), ("runs", "mmd"), ("runs", "within")):
        assert math.isnan(row(table, level, companion)["spearman"])


def test_rank_correlations_repeat_and_leave_the_global_random_state_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (rank_correlations(layers(), runs()) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("name", "column"), [("layers", "cka"), ("runs", "mmd")])
def test_tables_without_a_column_are_an_error(name, column):
    tables = {"layers": layers(), "runs": runs(4)}
    tables[name] = tables[name].drop(columns=column)
    with pytest.raises(InputError, match=f"Expected `{name}` to have the columns .*, but it lacks {column}; "):
        rank_correlations(**tables)
