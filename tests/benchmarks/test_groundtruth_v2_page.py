"""The page of ground truth v2: its numbers on tables where the right ones are known, and at any state of the tables."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from groundtruth.v2 import design, report, targets, zoo
from groundtruth.v2.page import choices, claims, components, cuts, depths, measured, noise, one_number, published, ways
from groundtruth.v2.page.mixed import Term, fit, independent

V2 = Path(report.HERE)
STAGES = {entry["name"]: stages for entry, stages in
          zip(zoo.sources(Path()), (18, 23, 19, 19, 19, 19, 11, 6, 6), strict=True)}  # fmt: skip
PLAIN = {"balanced_accuracy": 0.5, "kgco2e": 0.0, "peak_memory": 1e8, "trials": 1, "status": "done"}


def written(folder: Path, names: list[str], n_trained: int) -> Path:
    """Write tables as the streams do: all heads on some targets, and the first runs of the design."""
    rng = np.random.default_rng(0)
    levels = {name: rng.normal(0, 0.5, 2) for name in targets.TARGETS}
    networks = {source: rng.normal(0, 0.3) for source in (*STAGES, zoo.COMPACT)}

    def row(source, target, protocol, depth, layer, size, seed):
        stages = STAGES.get(source, 7)
        share = depth / stages
        trained = protocol not in ("truncate", "toptuning", "fne")
        bend = -4 * (share - 0.8) ** 2 if protocol in ("truncate", "toptuning") else 0.4 * trained - 0.3 * share
        tested = measured.TESTED[target]
        z = bend + levels[target][int(trained)] + networks[source] + 0.4 * math.log(size / 20) + rng.normal(0, 0.1)
        seconds = 0.02 * size * (100 if trained else 1)
        return PLAIN | {
            "source": source, "target": target, "protocol": protocol, "depth": depth, "depths": stages, "layer": layer,
            "samples_per_class": size, "samples": 5 * size, "seed": seed,
            "accuracy": round(tested / (1 + math.exp(-z))) / tested,
            "seconds": seconds, "flops": 1e9 * seconds, "kwh": 1e-6 * seconds,
        }  # fmt: skip

    for name in names:
        rows = []
        for source, stages in STAGES.items():
            for size in targets.TARGETS[name].sizes:
                for seed in range(3):
                    cut = [(p, d, f"l{d}") for p in ("truncate", "toptuning") for d in range(1, stages + 1)]
                    rows += [row(source, name, *each, size, seed) for each in [*cut, ("fne", stages, "all")]]
        save(pd.DataFrame(rows), folder / "frozen" / name)
    trained: dict[str, list] = {}
    for cell in design.read()[:n_trained]:
        depth = cell.depth(STAGES.get(cell.source, 7))
        found = row(cell.source, cell.target, cell.protocol, depth, f"l{depth}" if depth else "",
                    cell.samples_per_class, cell.seed)  # fmt: skip
        trained.setdefault(cell.target, []).append(found | {"cpu_seconds": found["seconds"] / 2, "recipe": 1})
    for name, rows in trained.items():
        save(pd.DataFrame(rows), folder / "trained" / name)
    return folder


def save(table: pd.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True)
    table.to_csv(folder / "runs.csv", index=False)


@pytest.fixture(scope="module")
def v1(tmp_path_factory) -> Path:
    """Return a little of the maps of v1."""
    root = tmp_path_factory.mktemp("v1")
    for name, sources in (("small", ["cifar10", "mnist"]), ("real", None)):
        for path in sorted((V2.parent / name).glob("*/runs.csv")):
            runs = pd.read_csv(path, keep_default_na=False, na_values=[""])
            kept = runs["source"].isin(sources) if sources else runs["source"].str.contains("imagenet|insect|56")
            save(runs[kept], root / name / path.parent.name)
    return root


@pytest.mark.parametrize(
    ("names", "n_trained"),
    [
        ([], 0),
        (["trashnet"], 12),
        (["trashnet", "sign-digits", "pacs-sketch"], 250),
    ],
)
def test_the_page_is_written_at_any_state_of_the_tables(tmp_path, v1, capsys, names, n_trained):
    tables = measured.load(written(tmp_path / "v2", names, n_trained), v1)
    assert (len(tables.trained), tables.heads["target"].nunique()) == (n_trained, len(names))
    figures = report.page(tables, {}, jackknife=n_trained == 12)
    text = capsys.readouterr().out
    assert f"{len(tables.trained)} of 860 runs that train a network" in text
    assert not re.search(r"\bnan\b", text)
    for section in ("best cut", "against fine-tuning", "freeze", "Source, depth", "Top-tuning", "components",
                    "One number", "disagrees"):  # fmt: skip
        assert any(section in line for line in text.splitlines() if line.startswith("## ")), section
    assert set(figures) <= set(report.CAPTIONS)
    assert ("crossing" in figures) == (n_trained == 250)
    if n_trained < 250:
        assert "not measured yet" in text.lower()
    assert "No published tables were at hand" in text


def test_pictures_of_nothing_are_removed(tmp_path, v1, monkeypatch):
    monkeypatch.setattr(report, "page", lambda _tables, _others: {})
    (tmp_path / "groundtruth-v2-old.png").write_bytes(b"")
    (tmp_path / "groundtruth-real-depth.png").write_bytes(b"")
    report.write(measured.load(tmp_path, v1), {}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["groundtruth-real-depth.png", "groundtruth-v2.md"]


def test_test_images_are_those_of_the_readme_and_of_the_accuracies(v1):
    listed = dict(targets.TARGETS)
    for line in (V2 / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = cells[0].split(" ")[0]
        if name in listed and len(cells) == 4:
            assert int(cells[2]) == measured.TESTED[name]
            del listed[name]
    assert not listed
    tables = measured.load(V2, v1)
    for runs in (tables.heads, tables.trained, tables.small, tables.real):
        right = runs["accuracy"] * runs["tested"]
        assert right.tolist() == pytest.approx(right.round().tolist(), abs=1e-3)


@pytest.mark.parametrize("stages", [6, 11, 18, 23])
def test_a_depth_is_known_by_the_share_that_the_design_calls_it(stages):
    for protocol, shares in design.SHARES.items():
        for share in shares:
            depth = design.Cell("a", "b", protocol, share, 5, 0).depth(stages)
            assert measured.named_share(protocol, depth, stages) == share
    assert measured.named_share("truncate", stages, stages) == 1
    assert measured.named_share("scratch", 0, stages) == 0


# The mixed model


def test_balanced_one_way_variances_are_those_of_the_analysis_of_variance():
    rng = np.random.default_rng(0)
    y = rng.normal(0, 2, 12)[:, None] + rng.normal(0, 0.7, (12, 5))
    within = y.var(1, ddof=1).mean()
    between = y.mean(1).var(ddof=1) - within / 5
    found = fit(y.ravel(), np.ones((60, 1)), [Term("group", np.repeat(np.arange(12), 5))], np.zeros(60))
    assert found.covariances["group"][0, 0] == pytest.approx(between, rel=1e-3)
    assert found.residuals["0.0"] == pytest.approx(within, rel=1e-3)


def test_the_likelihood_is_that_of_a_dense_gaussian():
    rng = np.random.default_rng(1)
    group, kind = np.repeat(np.arange(6), 4), np.tile([0, 0, 1, 1], 6)
    fixed = np.column_stack([np.ones(24), rng.normal(size=24)])
    known = np.where(kind == 0, 0.1, 0.3)
    y = rng.normal(size=24) + rng.normal(size=6)[group]
    found = fit(y, fixed, [Term("group", group, kind)], kind, known)
    residual = np.array([found.residuals[str(k)] for k in kind])
    covariance = found.covariances["group"][kind[:, None], kind] * (group[:, None] == group) + np.diag(residual + known)
    x = independent(fixed)
    inverse = np.linalg.inv(covariance)
    weights = np.linalg.inv(x.T @ inverse @ x)
    left = y - x @ weights @ x.T @ inverse @ y
    expected = -0.5 * (
        np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(weights)[1] + left @ inverse @ left
    )  # fmt: skip
    assert found.log_likelihood == pytest.approx(expected, abs=1e-6)


def test_known_components_are_found_again():
    rng = np.random.default_rng(0)
    targets_, networks, draws = 150, 12, 2
    sds, correlation = np.array([0.8, 0.4]), 0.6
    covariance = np.outer(sds, sds) * np.array([[1, correlation], [correlation, 1]])
    t, n, p, _ = (each.ravel() for each in np.meshgrid(range(targets_), range(networks), range(2), range(draws),
                                                       indexing="ij"))  # fmt: skip
    effect = rng.multivariate_normal(np.zeros(2), covariance, targets_)
    y = (
        np.array([1.0, -2.0])[p] + effect[t, p] + rng.normal(0, 0.5, networks)[n]
        + rng.normal(0, np.array([0.2, 0.6])[p]) + rng.normal(0, 0.3, len(t))
    )  # fmt: skip
    found = fit(y, np.eye(2)[p], [Term("target", t, p), Term("network", n)], p, np.full(len(t), 0.09))
    got = found.covariances["target"]
    assert np.sqrt(np.diag(got)) == pytest.approx(sds, rel=0.2)
    assert got[0, 1] / np.sqrt(got[0, 0] * got[1, 1]) == pytest.approx(correlation, abs=0.15)
    assert math.sqrt(found.covariances["network"][0, 0]) == pytest.approx(0.5, rel=0.5)
    assert [math.sqrt(found.residuals[name]) for name in ("0", "1")] == pytest.approx([0.2, 0.6], rel=0.1)


def test_a_singular_covariance_is_fitted():
    rng = np.random.default_rng(2)
    t, p = np.repeat(np.arange(40), 6), np.tile([0, 0, 1, 1, 2, 2], 40)
    y = rng.normal(0, 0.7, 40)[t] * np.array([1.0, 2.0, -1.0])[p] + rng.normal(0, 0.1, len(t))
    found = fit(y, np.eye(3)[p], [Term("target", t, p)], np.zeros(len(t))).covariances["target"]
    expected = np.outer([1, 2, -1], [1, 2, -1])
    assert found / found[0, 0] == pytest.approx(expected, rel=0.1)


# Noise and regret


def test_the_share_of_noise_is_that_of_means_over_draws():
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([range(400), range(4)], names=["target", "seed"])
    level = np.repeat(rng.normal(0, 1, 400), 4)
    values = pd.Series(level + rng.normal(0, 2, 1600), index)
    assert noise.within(values) == pytest.approx(4, rel=0.1)
    assert noise.share(values) == pytest.approx(0.5, abs=0.08)  # 4/4 beside 1
    assert math.isnan(noise.share(values[values.index.get_level_values("seed") == 0]))


def test_what_a_figure_rests_on_is_said():
    index = pd.MultiIndex.from_tuples([("trashnet", "a", 0), ("trashnet", "a", 1), ("gtsrb", "a", 0)],
                                      names=["target", "source", "seed"])  # fmt: skip
    said = noise.basis(pd.Series([1.0, 2.0, 5.0], index), measured.TESTED)
    assert said.startswith("2 cells, 2 targets, 1–2 draws, 1011–1620 test images; ")
    assert noise.basis(pd.Series([], index[:0], dtype=float), measured.TESTED) == "Not measured yet."
    assert noise.brief(pd.Series([1.0], index[:1]), measured.TESTED).endswith("noise not known")


def test_expected_regret_chooses_with_one_half_and_judges_with_the_other():
    table = pd.DataFrame([[0.5, 0.6], [0.7, 0.4]], columns=["a", "b"])
    # The first draw chooses b, which the second finds 0.3 behind a; the second chooses a, 0.1 behind b on the first.
    assert noise.expected_regret(table).to_dict() == pytest.approx({"a": (-0.3 + 0) / 2, "b": (0 - 0.1) / 2})
    assert noise.expected_regret(table.iloc[:1]).isna().all()
    assert sorted(len(half) for half in noise.halves(3)) == [3] * 6


def test_noise_does_not_make_regret():
    rng = np.random.default_rng(0)
    lost = [noise.expected_regret(pd.DataFrame(rng.normal(0, 1, (2, 20)))).mean() for _ in range(300)]
    assert np.mean(lost) == pytest.approx(0, abs=0.1)  # the best of twenty would be 1.3 ahead


# Sections


def curves_of(best: float, seeds: int = 3) -> pd.DataFrame:
    """Return heads of which the best cut is known."""
    rows = [
        {"target": target, "source": "a", "protocol": "truncate", "depth": depth, "depths": 12, "layer": f"l{depth}",
         "samples_per_class": size, "size": size, "seed": seed, "share": depth / 12, "seconds": 1.0, "flops": 1.0,
         "kwh": 1.0, "accuracy": 0.8 - (depth / 12 - best) ** 2 + 0.001 * seed}
        for target in ("trashnet", "gtsrb") for size in (5, 20) for seed in range(seeds) for depth in range(1, 13)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_best_cut_and_what_rules_lose_are_found():
    found = cuts.all_curves(curves_of(best=0.75))
    assert cuts.best_shares(found).tolist() == pytest.approx([0.75] * 4)
    assert cuts.few_to_many(cuts.best_shares(found)).mean == 0
    lost = cuts.regrets(found)
    assert lost["last stage"].tolist() == pytest.approx([100 * 0.25**2] * 4)
    assert lost["5/6 of the depth"].tolist() == pytest.approx([100 * (10 / 12 - 0.75) ** 2] * 4)
    assert lost[cuts.ELSEWHERE].tolist() == pytest.approx([0] * 4)


def test_the_best_stage_is_that_of_the_other_draws():
    heads = curves_of(best=0.75)
    heads.loc[(heads["seed"] == 2) & (heads["depth"] == 2), "accuracy"] = 0.99  # luck of one draw
    found = ways.fitted(heads).set_index("way").loc["linear head, best stage of other draws"]
    lucky = found[found["seed"] == 2]
    assert (lucky["accuracy"] < 0.81).all()
    assert len(found) == 12
    partly = ways.fitted(heads[(heads["target"] != "gtsrb") | (heads["seed"] == 0)]).set_index("way")
    assert set(partly.loc["linear head, best stage of other draws", "target"]) == {"trashnet"}


def test_a_crossing_lies_between_sizes():
    index = pd.MultiIndex.from_product([["a", "b", "c"], ["net"], [5, 20, 80]], names=["target", "source", "size"])
    found, spread = ways.crossing(pd.Series([10.0, 0.0, -10.0] * 3, index))
    assert found == "about 20"
    assert spread == "about 20 to about 20"
    assert ways.crossing(pd.Series([10.0], index[:1])) == ("not measured yet", "")


def test_time_is_that_of_the_processor_unless_it_was_a_gpu():
    runs = pd.DataFrame({"seconds": [100.0, 10.0, 4.0], "cpu_seconds": [25.0, 20.0, np.nan], "kwh": [4.0, 1.0, 1.0]})
    assert ways.cpu_cost(runs, on_gpu=False)[["seconds", "kwh"]].to_numpy().tolist() == [[25, 1], [10, 1], [4, 1]]
    assert ways.cpu_cost(runs, on_gpu=True) is runs


def test_a_slope_over_shares_is_within_targets():
    rows = [(target, source, 20, "reinit", share, 0, level - 8 * share)
            for target, level, shares in (("a", 0, (0.0, 0.5)), ("b", 40, (0.5, 1.0)), ("c", 90, (0.25, 1.0)))
            for source in ("x", "y") for share in shares]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["target", "source", "size", "protocol", "share", "seed", "gain"])
    gained = frame.set_index(["target", "source", "size", "protocol", "share", "seed"])["gain"]
    assert depths.slope(gained) == pytest.approx((-8, -8, -8))
    assert math.isnan(depths.slope(gained.iloc[:3]).mean)
    one_share = pd.concat([gained, gained.rename({"a": "d"}).xs(0.5, level="share", drop_level=False)])
    alone = one_share[one_share.index.get_level_values("target").isin(["a", "d"])]
    assert math.isnan(depths.slope(pd.concat([alone, alone.rename({0.0: 0.25})])).mean)


def test_variance_of_regret_goes_to_what_makes_it():
    rng = np.random.default_rng(0)
    source = rng.normal(0, 5, (1, 6, 1, 1))
    cut = rng.normal(0, 1, (1, 1, 8, 1))
    cube = choices.Cube(50 + source + cut + rng.normal(0, 0.5, (3, 6, 8, 2)))
    shares = choices.shares({("a", 5): cube})
    made = {"source": source.var(), "cut": cut.var()}
    assert shares["source"] == pytest.approx(made["source"] / sum(made.values()), abs=0.02)
    assert shares.drop(["source", "cut"]).abs().max() < 0.02
    lost = choices.random_choices({("a", 5): cube})
    assert lost["source"].mean == pytest.approx(float(source.max() - source.mean()), abs=1)
    assert abs(lost["head"].mean) < 0.3


def one_per_target(shared: float, own: float) -> pd.DataFrame:
    """Return networks whose logits lie off their probe's by a number of the target, and one of their own."""
    rng = np.random.default_rng(0)
    rows = []
    for target in range(30):
        gap = rng.normal(1, shared)
        for source in range(6):
            x = rng.normal(0, 0.5)
            probe, accuracy = (1 / (1 + np.exp(-z)) for z in (x, x + gap + rng.normal(0, own)))
            rows.append((str(target), 0, str(source), accuracy, probe, 1, 1e4))
    return pd.DataFrame(rows, columns=["target", "size", "source", "accuracy", "probe", "draws", "tested"])


@pytest.mark.parametrize(("shared", "own", "expected"), [(1.0, 0.1, 1), (0.0, 0.6, -1)])
def test_one_number_per_target_is_told_from_one_of_each_network(shared, own, expected):
    table = one_number.Table("made", one_per_target(shared, own), math.nan)
    _, ratio, answer = one_number.answer(table)
    assert answer == expected
    between, inside = one_number.spread(table.cells)
    assert between == pytest.approx(shared, abs=0.25)
    assert inside == pytest.approx(own, rel=0.15)
    if expected == 1:
        # Two errors of their own stay of the shifted one, and all of it of the regression.
        assert ratio.mean == pytest.approx(math.sqrt(2 * own**2 / (shared**2 + own**2)), rel=0.3)


def test_components_of_a_table_are_found_with_noise_of_draws_apart():
    rng = np.random.default_rng(3)
    rows = []
    effects = rng.multivariate_normal([0, 0], [[0.5, 0.4], [0.4, 0.5]], 40)
    networks = rng.normal(0, 0.4, 8)
    for target in range(40):
        for source in range(8):
            for i, protocol in enumerate(("fne", "finetune")):
                z = effects[target, i] + networks[source] + rng.normal(0, 0.1)
                for seed in range(3):
                    accuracy = 1 / (1 + np.exp(-z - rng.normal(0, 0.3)))
                    rows.append({"target": f"t{target}", "source": f"s{source}", "protocol": protocol, "depth": 1.0,
                                 "layer": "all", "samples_per_class": 5.0, "size": 5, "share": 1.0, "seed": seed,
                                 "accuracy": accuracy, "tested": 1e6})  # fmt: skip
    found = components.fitted("made", components.cells_of(pd.DataFrame(rows)), jackknife=False)
    values = components.values(found)
    assert values["noise, fne"] == pytest.approx(0.3, rel=0.1)
    assert values["rest, finetune"] == pytest.approx(0.1, abs=0.06)
    assert values["target, finetune"] == pytest.approx(0.5**0.5, rel=0.3)
    assert values["finetune and fne"] == pytest.approx(0.8, abs=0.15)
    assert values["network"] == pytest.approx(networks.std(ddof=1), rel=0.1)


def test_published_tables_are_read(tmp_path):
    (tmp_path / "medmnistplus.csv").write_text(
        "dataset,model,protocol,px,acc\nblood,A,finetune,224,90\nblood,A,finetune,28,80\nchestmnist,A,linear,224,50\n"
        "blood,A,linear,224,70\n"
    )
    (tmp_path / "vit-layers").mkdir()
    (tmp_path / "vit-layers" / "a.csv").write_text(
        "base_model,a,a\nExperiment,CLS last layer,CLS+AP layers from all blocks (linear)\ndataset_fmt,,\n"
        "SVHN,50,75\nmean perf. gain,0,25\n"
    )
    found = published.load(tmp_path)
    assert set(found) == {"medmnistplus", "vit"}
    assert found["medmnistplus"][["protocol", "accuracy"]].to_numpy().tolist() == [["finetune", 0.9], ["truncate", 0.7]]
    assert found["vit"].set_index("protocol")["accuracy"].to_dict() == {published.LAST: 0.5, published.ALL: 0.75}
    assert published.load(None) == {}


def test_verdicts_follow_from_intervals():
    def about(mean: float, half: float) -> claims.Estimate:
        return claims.Estimate(mean, mean - half, mean + half)

    assert claims.apart(about(4, 1), about(5, 1)) == claims.AGREES
    assert claims.apart(about(4, 4), about(5, 4)) == claims.OPEN
    assert claims.apart(about(0, 1), about(2, 1)) == claims.DISAGREES
    assert claims.apart(about(0, math.nan), about(2, 1)) == claims.MISSING
    assert claims.signed(about(3, 1), 1) == claims.AGREES
    assert claims.signed(about(-3, 1), 1) == claims.DISAGREES
    assert claims.signed(about(0.5, 1), 1) == claims.OPEN


def test_the_committed_page_is_of_the_committed_tables(v1):
    text = (report.RESULTS / "groundtruth-v2.md").read_text(encoding="utf-8")
    assert text.startswith("# Ground truth v2: what it says so far\n")
    pictures = {path.name for path in report.RESULTS.glob("groundtruth-v2-*.png")}
    assert pictures == {line.split("(")[-1].rstrip(")") for line in text.splitlines() if line.startswith("![")}
