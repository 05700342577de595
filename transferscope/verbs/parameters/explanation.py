"""What goes with transferability: a regression over targets and sizes, and rank correlations, with intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from transferscope.errors import InputError, check_whole

PREDICTORS = ("log_samples", "frechet", "within", "between")
"""ln of the number of training images, domain gap and diversity. Not `mmd` too: it says much the same as `frechet`."""

LEAST_TARGETS = 4
"""Fewer cannot tell predictors apart that are the same for all runs on a target."""

LEAST_RANKED = 3
"""Fewer layers, sizes or targets have no rank correlation, and fewer targets no interval."""

COMPANIONS_OF_LAYERS = {"gradient_snr": True, "relative_change": False, "cka": False, "depth": True}
"""What is compared with T over the layers of a run, and whether it is known before the transfer."""

COMPANIONS_OF_RUNS = ("frechet", "mmd", "within", "between", "gradient_snr")
"""What is compared with the mean T over targets; all of it is known before the transfer."""

_FITTED = (
    "source", "criterion", "predictor", "coefficient", "lower", "upper", "r_squared", "n_targets", "n_rows",
    "runs_left_out", "predictors_left_out", "draws_left_out",
)  # fmt: skip
_RANKED = ("source", "criterion", "level", "companion", "before_transfer", "spearman", "lower", "upper", "n")
_TAILS = (0.025, 0.975)


def explain(
    runs: pd.DataFrame,
    *,
    response: str = "transferability",
    predictors: Sequence[str] = PREDICTORS,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Regress the logarithm of the transferability on size, domain gap and diversity, for each source and criterion.

    Ordinary least squares over targets × sizes (means over seeds), with an intercept. The intervals are those of a
    bootstrap that draws whole targets, since runs on one target are no independent evidence. Domain gap and diversity
    hardly differ but between targets: with few targets their coefficients mean little, and the intervals say so.

    Chen et al. (2022, arXiv 2212.00399) report from their own sources and targets that more target images and more
    diversity lower T. That is quoted here, not tested: these are other data.

    Parameters
    ----------
    runs : pandas.DataFrame
        A row for each source, target, samples_per_class, seed and criterion, with these columns, `samples`, the
        response and the predictors.
    response : str
        Column whose natural logarithm is explained. Runs where it is NaN, infinite or not positive are left out.
    predictors : sequence of str
        Columns, or "log_samples" for ln(samples). Those that are NaN throughout, or do not vary, are left out; so are
        rows where another one is NaN.
    draws : int
        Bootstrap draws.
    seed : int
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        A row for each source, criterion and predictor: `coefficient`, the change of ln T for one standard deviation
        (over the rows) of the predictor, all others being equal; `lower`, `upper`, its 95 % percentile interval;
        `r_squared` (NaN where the response does not vary), `n_targets`, `n_rows` and `runs_left_out` of the regression;
        `predictors_left_out`, separated by commas; `draws_left_out`, draws of targets that cannot tell the predictors
        apart. Where these are more than half, `lower` and `upper` are NaN. `.attrs["reason"]` says which source and
        criterion has no rows and why (fewer than 4 targets, fewer than 2 rows more than coefficients, nothing that
        varies, or linear dependence); "" where all have.

    Raises
    ------
    InputError
        When a column is missing.
    """
    check_whole("draws", draws, 1)
    check_whole("seed", seed, 0)
    plain = [name for name in predictors if name != "log_samples"]
    _require(runs, "runs", ["source", "target", "samples_per_class", "criterion", "samples", response, *plain])
    positive = np.isfinite(runs[response]) & (runs[response] > 0)
    table = runs.assign(log_samples=np.log(runs["samples"]))
    # Last, so that a response that is a predictor too stays as it is.
    table["ln response"] = np.log(runs[response].where(positive))
    rows: list[dict[str, object]] = []
    reasons: dict[str, list[str]] = {}
    for (source, criterion), group in table.groupby(["source", "criterion"], sort=False):
        fitted = _regress(group, predictors, draws, seed)
        if isinstance(fitted, str):
            reasons.setdefault(fitted, []).append(f"{source} ({criterion})")
        else:
            rows += [{"source": source, "criterion": criterion, **row} for row in fitted]
    regression = pd.DataFrame(rows, columns=list(_FITTED))
    regression.attrs["reason"] = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return regression


def _regress(runs: pd.DataFrame, predictors: Sequence[str], draws: int, seed: int) -> list[dict[str, object]] | str:
    """Return a row for each predictor, or why there are none."""
    finite = runs[runs["ln response"].notna()]
    cells = finite.groupby(["target", "samples_per_class"], sort=False)[["ln response", *predictors]].mean()
    used = [name for name in predictors if cells[name].notna().any()]
    cells = cells[cells[used].notna().all(axis=1)]
    used = [name for name in used if _varies(cells[name].to_numpy())]
    codes, targets = pd.factorize(cells.index.get_level_values("target"))
    if len(targets) < LEAST_TARGETS:
        return f"only {len(targets)} of at least {LEAST_TARGETS} targets that are needed have a finite response"
    if not used:
        return "no predictor varies"
    if len(cells) < len(used) + 3:
        return f"{len(cells)} targets × sizes, and at least {len(used) + 3} are needed for {len(used)} predictors"
    x, y = cells[used].to_numpy(), cells["ln response"].to_numpy()
    design = np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])
    coefficients, _, rank, _ = np.linalg.lstsq(design, y)
    if rank < design.shape[1]:
        return f"{', '.join(used)} are linearly dependent; name fewer `predictors`"
    total = np.sum((y - y.mean()) ** 2)
    r_squared = 1 - np.sum((y - design @ coefficients) ** 2) / total if _varies(y) else math.nan
    drawn = _redrawn(design, y, codes, draws, seed)
    bounds = np.quantile(drawn, _TAILS, axis=0) if 2 * len(drawn) >= draws else np.full((2, len(coefficients)), np.nan)
    shared = {
        "r_squared": r_squared,
        "n_targets": len(targets),
        "n_rows": len(cells),
        "runs_left_out": len(runs) - len(finite),
        "predictors_left_out": ",".join(name for name in predictors if name not in used),
        "draws_left_out": draws - len(drawn),
    }
    return [
        {"predictor": name, "coefficient": coefficients[i], "lower": bounds[0, i], "upper": bounds[1, i], **shared}
        for i, name in enumerate(used, start=1)
    ]


def _redrawn(design: np.ndarray, y: np.ndarray, codes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return the coefficients (draws, n_coefficients) of draws of whole targets, without those of deficient rank."""
    each = codes == np.arange(codes.max() + 1)[:, None]
    products = np.stack([design[rows].T @ design[rows] for rows in each])
    projections = np.stack([design[rows].T @ y[rows] for rows in each])
    times = (_resamples(len(each), draws, seed)[:, :, None] == np.arange(len(each))).sum(1)
    matrices, sides = np.tensordot(times, products, 1), times @ projections
    eigenvalues = np.linalg.eigvalsh(matrices)
    full = eigenvalues[:, 0] > 1e-10 * eigenvalues[:, -1]
    return np.linalg.solve(matrices[full], sides[full][:, :, None])[:, :, 0]


def rank_correlations(layers: pd.DataFrame, runs: pd.DataFrame, *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compare the order of T with that of what is measured beside it: Spearman correlations by source and criterion.

    Over the layers within a run ("layers within a run"): the mean over runs. Over runs ("runs"), from the mean T over
    layers and seeds: with `samples` over the sizes of a target, the mean over targets; with the others over targets at
    the same size (`samples_per_class`), the mean over sizes. An infinite T ranks above all others. Intervals are those
    of a bootstrap that draws whole targets.

    Parameters
    ----------
    layers, runs : pandas.DataFrame
        A row for each source, target, samples_per_class, seed, criterion and, of `layers`, layer.
    draws : int
        Bootstrap draws.
    seed : int
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        `source`, `criterion`, `level`, `companion`; `before_transfer`, whether it is known without a transfer;
        `spearman` in [-1, 1], and `lower`, `upper`, its 95 % percentile interval; `n`, the number of runs or targets
        that it rests on. NaN where fewer than 3 points are known or all are equal, and for intervals where there are
        fewer than 3 targets.

    Raises
    ------
    InputError
        When a column is missing.
    """
    keys = ["source", "target", "samples_per_class", "seed", "criterion", "transferability"]
    _require(layers, "layers", [*keys, *COMPANIONS_OF_LAYERS])
    _require(runs, "runs", [*keys, "samples", *COMPANIONS_OF_RUNS])
    rows: list[tuple[object, ...]] = []
    for (source, criterion), group in layers.groupby(["source", "criterion"], sort=False):
        within = [(run[0], table) for run, table in group.groupby(["target", "samples_per_class", "seed"], sort=False)]
        targets = pd.factorize(np.array([target for target, _ in within], dtype=object))[0]
        for companion, before in COMPANIONS_OF_LAYERS.items():
            correlations = np.array([
                _spearman(table["transferability"].to_numpy(float), table[companion].to_numpy(float))
                for _, table in within
            ])  # fmt: skip
            estimate = _averaged(correlations, targets, draws, seed)
            rows.append((source, criterion, "layers within a run", companion, before, *estimate))
    for (source, criterion), group in runs.groupby(["source", "criterion"], sort=False):
        values = ["transferability", "samples", *COMPANIONS_OF_RUNS]
        cells = group.pivot_table(values, "target", "samples_per_class", aggfunc="mean", dropna=False)
        grids = {name: cells[name].to_numpy(float) for name in values}  # (targets, sizes)
        over_sizes = _spearman(grids["transferability"], grids["samples"])
        estimate = _averaged(over_sizes, np.arange(len(over_sizes)), draws, seed)
        rows.append((source, criterion, "runs", "samples", True, *estimate))
        for companion in COMPANIONS_OF_RUNS:
            estimate = _over_targets(grids["transferability"], grids[companion], draws, seed)
            rows.append((source, criterion, "runs", companion, True, *estimate))
    return pd.DataFrame(rows, columns=list(_RANKED))


def _averaged(correlations: np.ndarray, targets: np.ndarray, draws: int, seed: int) -> tuple[float, float, float, int]:
    """Mean of the correlations that are known, its interval over targets, and their number."""
    valid = ~np.isnan(correlations)
    codes = np.unique(targets[valid], return_inverse=True)[1]
    sums, counts = np.bincount(codes, correlations[valid]), np.bincount(codes)
    drawn = np.empty(0)
    if len(counts) >= LEAST_RANKED:
        chosen = _resamples(len(counts), draws, seed)
        drawn = sums[chosen].sum(1) / counts[chosen].sum(1)
    return float(_mean(correlations)), *_interval(drawn, draws), int(valid.sum())


def _over_targets(x: np.ndarray, y: np.ndarray, draws: int, seed: int) -> tuple[float, float, float, int]:
    """Mean over sizes of the correlation over targets, its interval, and the number of targets; (targets, sizes)."""
    pairs = ~(np.isnan(x) | np.isnan(y))
    pairs &= pairs.sum(0) >= LEAST_RANKED
    some = pairs.any(1)
    x, y = x[some], y[some]
    chosen = _resamples(len(x), draws, seed)
    # (draws, targets, sizes), with the targets last to be ranked.
    drawn = _mean(_spearman(np.moveaxis(x[chosen], 1, -1), np.moveaxis(y[chosen], 1, -1)))
    return float(_mean(_spearman(x.T, y.T))), *_interval(drawn, draws), len(x)


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman correlation along the last axis of the pairs without NaN; NaN for fewer than 3, or constant ones."""
    valid = ~(np.isnan(x) | np.isnan(y))
    ranks = [rankdata(np.where(valid, each, np.nan), axis=-1, nan_policy="omit") for each in (x, y)]
    count = valid.sum(-1, keepdims=True)
    a, b = (np.where(valid, each - (count + 1) / 2, 0) for each in ranks)
    scale = np.sqrt(np.sum(a**2, -1) * np.sum(b**2, -1))
    told = (count[..., 0] >= LEAST_RANKED) & (scale > 0)
    return np.where(told, np.sum(a * b, -1) / np.where(told, scale, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean along the last axis of what is not NaN; NaN where there is nothing else."""
    count = np.sum(~np.isnan(values), -1)
    return np.where(count > 0, np.nansum(values, -1) / np.maximum(count, 1), np.nan)


def _interval(drawn: np.ndarray, draws: int) -> tuple[float, float]:
    """Interval that holds 95 % of the draws; NaN unless at least half of them have a value."""
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0 or 2 * len(drawn) < draws:
        return math.nan, math.nan
    lower, upper = np.quantile(drawn, _TAILS)
    return float(lower), float(upper)


def _resamples(n: int, draws: int, seed: int) -> np.ndarray:
    """Draw positions (draws, n) with replacement; the same for the same n, so that no row depends on another one."""
    return np.random.default_rng(seed).integers(max(n, 1), size=(draws, n))


def _varies(values: np.ndarray) -> bool:
    """Whether values differ by more than the rounding of a mean over seeds."""
    return bool(np.ptp(values) > 1e-12 * np.max(np.abs(values))) if len(values) else False


def _require(table: pd.DataFrame, name: str, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(
            f"Expected `{name}` to have the columns {', '.join(columns)}, but it lacks {', '.join(missing)}; "
            f"`parameters.measure` makes such a table"
        )
