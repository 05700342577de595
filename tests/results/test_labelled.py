"""Arrays in, labelled xarray out: the values of every pair, the padding, the names."""

import json

import numpy as np
import pytest
import xarray as xr

import transferscope
from transferscope import similarity, transferability
from transferscope.activations.stages import Stage
from transferscope.errors import TransferscopeWarning
from transferscope.results import labelled
from transferscope.results.labelled import SIMILARITIES, SourceScores
from transferscope.transferability.panel import score_source
from transferscope.verbs.rank import factored

pytestmark = pytest.mark.bounds

NAMES = ("logme", "hscore", "ridge")


def features(widths, n_samples=60, seed=0, dtype=np.float64):
    """Layers of these widths that share a signal of three dimensions."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(n_samples, 3))
    return {
        f"layer{i}": (shared @ rng.normal(size=(3, width)) + rng.normal(size=(n_samples, width))).astype(dtype)
        for i, width in enumerate(widths)
    }


def unit(source, stages, reference_layers, seed=0, **more):
    rng = np.random.default_rng(seed)
    return SourceScores(
        source,
        tuple(Stage(f"{source}.{i}", (4, 2, 2), params=10 * i, flops=100 * i) for i in range(1, stages + 1)),
        tuple(f"ref{i}" for i in range(reference_layers)),
        {name: rng.normal(size=stages) for name in NAMES} | more.pop("scores", {}),
        {name: rng.normal(size=(stages, reference_layers)) for name in SIMILARITIES},
        **more,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factored_layers_are_scored_as_the_panel_scores_each_alone(dtype):
    arrays = features([4, 20, 90], dtype=dtype)
    labels = np.random.default_rng(1).integers(0, 3, 60)
    scores = score_source(factored.layers_of(factored.factor(arrays)), None, labels, NAMES)
    assert set(scores) == set(NAMES)
    for i, array in enumerate(arrays.values()):
        alone = transferability.panel(array, labels, NAMES)
        assert {name: scores[name][i] for name in NAMES} == pytest.approx(alone, rel=1e-9)


def test_layers_are_compared_as_each_pair_is_alone():
    x, y = features([4, 12]), features([6, 3, 15], seed=1)
    compared = factored.compare_layers(factored.factor(x), factored.factor(y))
    cka = [[similarity.linear_cka(X, Y, debiased=True) for Y in y.values()] for X in x.values()]
    svcca = [[similarity.svcca(X, Y) for Y in y.values()] for X in x.values()]
    assert set(compared) == set(SIMILARITIES)
    np.testing.assert_allclose(compared["linear_cka"], cka, atol=1e-10)
    np.testing.assert_allclose(compared["svcca"], svcca, atol=1e-10)


def test_a_constant_layer_costs_its_own_row_only():
    x = {"dead": np.ones((60, 5)), **features([4])}
    y = features([6], seed=1)
    with pytest.warns(TransferscopeWarning, match="NaN"):
        compared = factored.compare_layers(factored.factor(x), factored.factor(y))
    for matrix in compared.values():
        assert np.isnan(matrix[:, 0]).tolist() == [True, False]


def test_the_dataset_has_every_source_at_every_depth():
    units = [unit("a", 3, 4, seed=1), unit("b", 5, 4, seed=2)]
    dataset = labelled.to_dataset(units, {"target": "shells", "n_samples": 60, "seed": 7})

    assert dict(dataset.sizes) == {"source": 2, "depth": 5, "reference_layer": 4}
    assert dataset["source"].to_numpy().tolist() == ["a", "b"]
    assert dataset["depth"].to_numpy().tolist() == [1, 2, 3, 4, 5]
    assert dataset["layer"].sel(source="a").to_numpy().tolist() == ["a.1", "a.2", "a.3", "", ""]
    params = dataset["params"].sel(source="a").to_numpy()
    assert params.tolist() == pytest.approx([10, 20, 30, np.nan, np.nan], nan_ok=True)
    assert dataset["flops"].sel(source="b").to_numpy().tolist() == [100, 200, 300, 400, 500]
    for each, kept in zip(units, (3, 5), strict=True):
        rows = dataset.sel(source=each.source)
        for name in NAMES:
            np.testing.assert_array_equal(rows[name], [*each.scores[name], *[np.nan] * (5 - kept)])
        np.testing.assert_allclose(rows["depth_fraction"][:kept], np.arange(1, kept + 1) / kept)
        assert rows["network_params"] == 10 * kept
        for name in SIMILARITIES:
            np.testing.assert_array_equal(rows[name][:kept], each.similarities[name])
            assert np.isnan(rows[name][kept:]).all()
            best = [max(row) for row in each.similarities[name]]
            np.testing.assert_array_equal(rows[f"{name}_to_scratch"][:kept], best)
    assert dataset.attrs["target"] == "shells"
    assert dataset.attrs["n_samples"] == 60
    check_described(dataset)


def check_described(data):
    """Every number has a unit, everything a name and a description, and the whole a provenance."""
    versions = json.loads(data.attrs["versions"])
    assert (data.attrs["transferscope_version"], versions["numpy"]) == (transferscope.__version__, np.__version__)
    for each in [*data.coords.values(), *(data.data_vars.values() if isinstance(data, xr.Dataset) else [data])]:
        assert each.attrs["long_name"], each.name
        assert each.attrs["description"], each.name
        assert ("units" in each.attrs) == (each.dtype.kind in "fi"), each.name


def test_what_there_is_has_names_units_and_a_provenance_and_keeps_them_in_a_file(tmp_path):
    own = {"leep": np.float64(-0.7), "effective_rank": np.array([1.0, 2.0])}
    units = [unit("a", 2, 2, scores=own, standard_errors={"logme": np.array([0.1, 0.2])})]
    scores = labelled.to_dataset(units, {"n_samples": 60}, {"source_accuracy": [0.9], "preference": [2.0]})
    assert [scores[name].attrs["units"] for name in ("logme", "logme_standard_error", "leep", "ridge", "flops")] == [
        "nats per sample", "nats per sample", "nats", "1", "1",
    ]  # fmt: skip
    assert scores["logme"].attrs["long_name"] == "LogME"
    assert scores["effective_rank"].attrs["long_name"] == "Effective rank (looks at no labels)"

    cells = {"informative": np.ones((2, 1), bool), "standard_error": np.ones((2, 1)), "p_value": np.ones((2, 1))}
    array = labelled.similarity_array(np.eye(2)[:, :1], ["a", "b"], ["c"], cells, measure="svcca", n_samples=9)
    assert (array.attrs["long_name"], array["standard_error"].attrs["long_name"]) == ("SVCCA", "standard error")
    joined = labelled.similarity_dataset({"svcca": array}, {"x": "one"})
    assert joined["svcca_p_value"].attrs["long_name"] == "SVCCA, p-value"
    assert joined["svcca"].attrs["n_samples"] == 9
    assert "versions" not in joined["svcca"].attrs  # once is enough

    known = {"spread": [0.1], "distance_to_initial": [2.0], "distance_to_source": [1.0], "relative_change": [0.5]}
    parameters = labelled.parameter_array(np.array([2.0]), ["a"], known | {"weights": [1], "reason": [""]}, initials=2)
    assert parameters["depth"].attrs["description"] == "Place of the layer, 1 for the first."

    for name, data in {"scores": scores, "array": array, "joined": joined, "layers": parameters}.items():
        check_described(data)
        data.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        read = xr.load_dataarray if isinstance(data, xr.DataArray) else xr.load_dataset
        found = read(tmp_path / f"{name}.nc", engine="h5netcdf")
        xr.testing.assert_identical(found, data)


def test_references_of_different_length_are_padded_and_named():
    a, b = unit("a", 2, 2), unit("b", 2, 3)
    dataset = labelled.to_dataset([a, b], {})
    assert dataset["reference_layer"].to_numpy().tolist() == [1, 2, 3]
    assert dataset["reference_layer_name"].to_numpy().tolist() == [["ref0", "ref1", ""], ["ref0", "ref1", "ref2"]]
    assert np.isnan(dataset["svcca"].sel(source="a", reference_layer=3)).all()


def test_the_nearest_layer_ignores_nan_and_all_nan_stays_nan_quietly():
    each = unit("a", 2, 3)
    each.similarities["linear_cka"][:] = [[np.nan, 0.2, -0.1], [np.nan] * 3]
    nearest = labelled.to_dataset([each], {})["linear_cka_to_scratch"].to_numpy()
    np.testing.assert_array_equal(nearest, [[0.2, np.nan]])


def test_a_source_comes_out_of_the_dataset_as_it_went_in():
    units = [unit("a", 3, 2), unit("b", 5, 4)]
    dataset = labelled.to_dataset(units, {})
    for each in units:
        for measure in SIMILARITIES:
            matrix = labelled.source_similarity(dataset, each.source, measure)
            np.testing.assert_array_equal(matrix, each.similarities[measure])
            assert matrix.dims == ("layer_x", "layer_y")
            assert matrix["layer_x"].to_numpy().tolist() == [stage.layer for stage in each.stages]
            assert matrix["layer_y"].to_numpy().tolist() == list(each.reference_layers)
            assert (matrix.attrs["measure"], matrix.attrs["x"], matrix.attrs["y"]) == (measure, each.source, "scratch")


def test_scores_say_their_range_and_paper_and_those_of_a_source_have_no_depth():
    own = {"leep": np.float64(-0.7), "nce": np.float64(np.nan)}
    errors = {"logme": np.array([0.1, 0.2]), "leep": np.float64(0.3)}
    units = [unit("a", 2, 2, scores=own, standard_errors=errors)]
    dataset = labelled.to_dataset(units, {"uncertainty": 12}, {"source_accuracy": [0.9], "preference": [2.0]})
    assert dataset["leep"].dims == dataset["nce"].dims == dataset["leep_standard_error"].dims == ("source",)
    assert dataset["leep"].item() == -0.7
    assert np.isnan(dataset["nce"].item())
    assert dataset["leep"].attrs["paper"] == "Nguyen et al. 2020"
    assert dataset["hscore"].attrs["range"] == "[0, C - 1]"
    np.testing.assert_array_equal(dataset["logme_standard_error"], [[0.1, 0.2]])
    assert "12 stratified draws of 80%" in dataset["logme_standard_error"].attrs["description"]
    assert (dataset["source_accuracy"].item(), dataset["preference"].item()) == (0.9, 2.0)
    assert labelled.score_names(dataset) == [
        "linear_cka_to_scratch", "svcca_to_scratch", "logme", "logme_standard_error", "hscore", "ridge",
        "leep", "leep_standard_error", "nce",
    ]  # fmt: skip
