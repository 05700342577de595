"""Scores of feature arrays of one's own: from memory or from a file, as a table."""

import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import array_api_compat
import numpy as np
import pandas as pd
import xarray as xr
from pandas.api.types import is_numeric_dtype

from transferscope import transferability
from transferscope.arrays import backend
from transferscope.errors import InputError
from transferscope.runtime.checks import check_labelled
from transferscope.runtime.lookup import missing_file
from transferscope.runtime.regular import is_regular, open_regular
from transferscope.transferability.task import Task
from transferscope.transferability.tasks import task_of

FORMATS = (".npz", ".npy", ".nc")

_DENSEST, _SMALL = 50, 2**27
"""How many times its own bytes a file may stand for, and bytes that any may."""


def score(
    features: Any,
    labels: Any,
    measures: str | Iterable[str] | None = None,
    *,
    source_probabilities: Any = None,
    task: str = "classification",
) -> pd.DataFrame:
    """Score features of one's own, of one layer or several: how well they suit a labelled task.

    Parameters
    ----------
    features
        (n_samples, n_features), a NumPy or CuPy array, a torch tensor, a DataFrame, or a DataArray with dimensions
        `sample` and `feature`; or a mapping from layer name to such.
    labels
        (n_samples,) integers, booleans or strings, at least two classes; a Series may be categorical, of anything.
        -1 and -100 stand for missing labels in other libraries and are refused: leave such samples out, or name the
        classes by strings.
    measures
        Names of `transferability.SCORES`, which says what each is; None for all that can be computed.
    source_probabilities
        (n_samples, n_source_classes), what the source predicts for its own classes: needed by LEEP and NCE alone.
        As the features; the dimensions of a DataArray are `sample` and `source_class`.
    task
        "classification"; "multi-label": labels are 0 and 1 or bools, (n_samples, n_labels), and the scores those that
        can be averaged over labels, of ridge and kernel ridge the leave-one-out mean average precision; or
        "regression": labels are numbers, (n_samples,) or (n_samples, n_targets), and the scores LogME, leave-one-out
        R² of ridge and kernel ridge, alignment and effective rank. Others have no meaning there.

    Returns
    -------
    DataFrame
        A row per layer (index `layer`; ``"features"`` for an array without a name), a column per score. All are
        better the higher; NaN where one is not defined for these data, with a warning that says why.

    Raises
    ------
    InputError
        When features, labels or probabilities are not as above, or a name is unknown; or when two of them have an
        index (of a DataFrame, a Series, or the coordinate `sample`) and these are not the same.

    Examples
    --------
    >>> labels = np.repeat([0, 1], 10)
    >>> layers = {"classes": np.eye(2)[labels], "nothing": np.ones((20, 2))}
    >>> table = score(layers, labels, ["nearest_mean", "hscore"])
    >>> table.loc["classes", "nearest_mean"]
    np.float64(1.0)
    >>> table.loc["nothing", "hscore"]
    np.float64(0.0)
    """
    other = task_of(task)
    if other is not None and source_probabilities is not None:
        raise InputError(
            f"Expected no `source_probabilities` for {other.of_what}, for which LEEP and NCE have no meaning; leave "
            "them out"
        )
    if not isinstance(features, Mapping):
        rows = {"features": _panel(features, labels, measures, source_probabilities, other)}
    elif features:
        measures = measures if measures is None or isinstance(measures, str) else list(measures)
        rows = {}
        for layer, array in features.items():
            rows[layer] = _named(layer, array, labels, measures, source_probabilities, other)
    else:
        raise InputError("Expected `features` to hold at least one layer but got none; pass an array or a mapping")
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(index="layer", columns="score")


def _panel(features: Any, labels: Any, measures: Any, source_probabilities: Any, task: Task | None) -> dict[str, float]:
    given = {"features": features, "labels": labels, "source_probabilities": source_probabilities}
    indices = {name: index for name, values in given.items() if (index := _index(values)) is not None}
    for name, index in indices.items():
        first = next(iter(indices))
        if not index.equals(indices[first]):
            raise InputError(
                f"Expected `{name}` to have the same index as `{first}`, in the same order, but it has not; bring them "
                "together with .loc, or leave the index out with .to_numpy()"
            )
    if task is not None:
        return task.panel(_array("features", features), _numbers(labels), measures)
    arrays = {name: _array(name, values) for name, values in given.items()}
    return transferability.panel(arrays.pop("features"), arrays.pop("labels"), measures, **arrays)


def _numbers(labels: Any) -> Any:
    """Return labels in columns as an array."""
    if labels is None:
        raise InputError("Expected `labels` to hold numbers for every sample, but got None")
    if isinstance(labels, xr.DataArray):
        return labels.transpose("sample", ...).to_numpy() if "sample" in labels.dims else labels.to_numpy()
    if isinstance(labels, pd.Series):
        labels = labels.to_frame()
    return _array("features", labels) if isinstance(labels, pd.DataFrame) else _array("targets", labels)


def _index(values: Any) -> pd.Index | None:
    """Return what names the samples, where anything does."""
    if isinstance(values, xr.DataArray):
        return values.indexes.get("sample")
    return values.index if isinstance(values, pd.DataFrame | pd.Series) else None


def _named(layer: Any, *arguments: Any) -> dict[str, float]:
    """Score one layer of several; what goes wrong, or is only warned of, names it."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values = _panel(*arguments)
    except InputError as error:
        raise InputError(f"layer {layer!r}: {error}") from error
    for each in caught:
        warnings.warn(f"layer {layer!r}: {each.message}", each.category, stacklevel=3)
    return values


def _array(name: str, values: Any) -> Any:
    if values is None and name == "labels":
        raise InputError("Expected `labels` to name the class of every sample, but got None")
    if isinstance(values, xr.DataArray):
        values = _transposed(f"`{name}`", values, _DIMS[name]).to_numpy()
    if isinstance(values, pd.Series) and name == "labels":
        if values.hasnans:
            raise InputError(
                f"Expected `labels` to name the class of every sample but {values.isna().sum()} of {len(values)} are "
                "missing; drop these samples, from the features too"
            )
        values = (values.astype(str) if isinstance(values.dtype, pd.CategoricalDtype) else values).to_numpy()
    if isinstance(values, pd.DataFrame) and name != "labels":
        if others := [repr(column) for column, kind in values.dtypes.items() if not is_numeric_dtype(kind)]:
            raise InputError(
                f"Expected `{name}` to hold numbers in every column but not so {', '.join(others)}; drop it"
            )
        array = values.to_numpy()
        # Columns of different kinds, or of pandas' own, that know missing values.
        return values.to_numpy(np.float64, na_value=np.nan) if array.dtype == object else array
    array = backend.from_torch(values) if array_api_compat.is_torch_array(values) else values
    if name == "labels":
        if isinstance(array, np.ndarray):
            backend.to_numpy(array)  # which a masked one is not let through
        check_labelled(np.asarray(array) if isinstance(array, list | tuple) else array, "samples")
    return array


def _transposed(what: str, array: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    if set(array.dims) != set(dims):
        raise InputError(f"Expected {what} to have dimensions {dims} but got {array.dims}; rename or reduce them")
    return array.transpose(*dims)


class FeatureFile(NamedTuple):
    """What a file of features holds."""

    features: np.ndarray
    """(n_samples, n_features)."""
    labels: np.ndarray
    """(n_samples,)."""
    source_probabilities: np.ndarray | None = None
    """(n_samples, n_source_classes)."""


def read_features(path: str | Path, labels: str | Path | None = None) -> FeatureFile:
    """Read features and labels from a file; nothing in it is ever unpickled.

    Parameters
    ----------
    path
        An ``.npz`` file with arrays, or a NetCDF file (``.nc``) with variables, `features` (sample, feature) and
        `labels` (sample), and `source_probabilities` (sample, source_class) if there are any; or an ``.npy`` file
        with the features alone. Whatever else the first two hold is ignored.
    labels
        An ``.npy`` file with the labels: needed with an ``.npy`` file, wrong with the others.

    Raises
    ------
    InputError
        When a file is missing, damaged, of another kind, or does not hold this.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"Expected a file of features that ends in {', '.join(FORMATS)} but got {path}; convert it")
    if path.suffix == ".npy":
        if labels is None:
            raise InputError(f"Expected a file of labels beside {path}, which holds features alone; name an .npy file")
        return FeatureFile(_read_npy(path), _read_npy(Path(labels)))
    if labels is not None:
        raise InputError(
            f"Expected no file of labels beside {path}, which holds its own, but got {labels}; leave it out"
        )
    arrays = _read(path, _npz if path.suffix == ".npz" else _netcdf)
    return FeatureFile(arrays["features"], arrays["labels"], arrays.get("source_probabilities"))


def _read_npy(path: Path) -> np.ndarray:
    if path.suffix != ".npy":
        raise InputError(
            f"Expected features and labels as a pair of .npy files but got {path}; save it with numpy.save"
        )
    return _read(path, _npy)


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """Call the reader; say what is wrong with the file when it cannot be read."""
    if not is_regular(path):
        raise InputError(missing_file(path))
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # libraries raise nearly anything on bytes that are not their own
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path} holds Python objects, which are never read, for that runs code; save features and labels as "
                "numbers or strings, labels.astype(str) for instance"
            ) from error
        raise InputError(f"Cannot read {path}: {error}; save it again") from error


def _npy(path: Path) -> np.ndarray:
    # Opened here, for numpy leaves a damaged file open.
    with open_regular(path) as stream:
        array = np.load(stream, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise InputError(f"Expected {path} to hold one array but it is an archive of several; call it .npz")
        return array


def _npz(path: Path) -> dict[str, np.ndarray]:
    with open_regular(path) as stream:
        _check_size(path, _unpacked_size(stream))
        file = np.load(stream, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise InputError(f"Expected {path} to hold features and labels but it is a single array; call it .npy")
        return {name: file[name] for name in _expected(path, file.files)}


def _unpacked_size(stream: IO[bytes]) -> int:
    """Return how many bytes an archive unpacks to, 0 of what is none."""
    is_archive = stream.read(2) == b"PK"
    stream.seek(0)
    if not is_archive:
        return 0
    with zipfile.ZipFile(stream) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    stream.seek(0)
    return size


def _check_size(path: Path, size: int) -> None:
    """Raise InputError when a file stands for far more than it holds."""
    held = path.stat().st_size
    if size > max(_DENSEST * held, _SMALL):
        raise InputError(
            f"Expected {path} to hold what it stands for, but its {held} bytes stand for {size}, more than {_DENSEST} "
            "times as many; save the features without compression"
        )


def _netcdf(path: Path) -> dict[str, np.ndarray]:
    from transferscope.results.labelled import read_netcdf  # which loads torch

    dataset = read_netcdf(
        path,
        lambda names: _expected(path, names),
        lambda size: _check_size(path, size),
        decode_times=False,
    )
    return {
        name: _transposed(f"variable {name} of {path}", dataset[name], _DIMS[name]).to_numpy()
        for name in _DIMS
        if name in dataset
    }


_DIMS = {
    "features": ("sample", "feature"),
    "labels": ("sample",),
    "source_probabilities": ("sample", "source_class"),
}


def _expected(path: Path, names: Iterable[str]) -> list[str]:
    present = list(names)
    if not {"features", "labels"} <= set(present):
        raise InputError(
            f"Expected {path} to hold 'features' and 'labels' but it holds "
            f"{', '.join(map(repr, present)) or 'nothing'}; save them under these names"
        )
    return [name for name in _DIMS if name in present]
