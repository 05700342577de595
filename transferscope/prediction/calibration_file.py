"""What a calibration file may hold; every problem of a file is reported in one pass, each with its field."""

import reprlib
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from transferscope.errors import InputError
from transferscope.prediction.covariates import COVARIATES
from transferscope.prediction.effects import BASES, EFFECTS, OF_NETWORK
from transferscope.runtime.printable import printable_cell

VERSION = 2
"""Of the file format."""


def _one_of(choices: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in choices:
            raise ValueError("unknown")
        return name

    return AfterValidator(check)


def _covariance(rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    if len(rows) != len(BASES) or any(len(row) != len(BASES) for row in rows):
        raise ValueError("of another shape")
    matrix = np.array(rows)
    if not np.allclose(matrix, matrix.T, rtol=1e-4) or np.linalg.eigvalsh(matrix).min() < -1e-6:
        raise ValueError("no covariance")
    return rows


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(allow_inf_nan=False, gt=0)]
_BaseName = Annotated[str, _one_of(BASES)]
_EffectName = Annotated[str, _one_of(EFFECTS)]
_CovariateName = Annotated[str, _one_of(tuple(COVARIATES))]
_Row = tuple[_Number, ...]
_Fingerprint = Annotated[str, Field(min_length=1)]
_Effects = Annotated[_Row, Field(min_length=OF_NETWORK, max_length=OF_NETWORK)]
_SHOWN = 10
"""Problems of a file that are said; of the others how many there are."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# The descriptions are what an error message says was expected.
class TermEntry(_Entry):
    """One summand of the predicted logit."""

    bases: Annotated[tuple[_BaseName, ...], Field(min_length=1)] = Field(
        description=f"a list with some of {', '.join(BASES)}"
    )
    factors: tuple[_CovariateName, ...] = Field(description=f"a list with some of {', '.join(COVARIATES)}")
    coefficient: _Number = Field(description="a finite number")


class ChosenEntry(_Entry):
    """What choosing does to a prediction."""

    shift: _Number = Field(description="a finite number")
    scale: _Positive = Field(description="a finite number above 0")


class CalibrationFile(_Entry):
    """A whole file; the fields are those of `calibration.Calibration`."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)] = Field(description=f"{VERSION}")
    measured: Annotated[str, Field(min_length=1)] = Field(description="words on what was measured")
    draw_noise: tuple[_Positive, _Number] = Field(description="two finite numbers, the first above 0")
    chosen: ChosenEntry = Field(description="an object with shift and scale, above 0")
    components: dict[_EffectName, Annotated[tuple[_Row, ...], AfterValidator(_covariance)]] = Field(
        description=f"for each of {', '.join(EFFECTS)} a covariance of {len(BASES)} rows and columns"
    )
    terms: Annotated[tuple[TermEntry, ...], Field(min_length=1)] = Field(
        description="a list of terms with bases, factors and coefficient"
    )
    networks: dict[_Fingerprint, _Effects] = Field(
        default_factory=dict, description=f"for each fingerprint of a network a list of {OF_NETWORK} finite numbers"
    )
    factor: tuple[_Row, ...] = Field(
        description=f"the lower triangle of a matrix with a row for each term and {OF_NETWORK} for each network"
    )

    @model_validator(mode="after")
    def _complete(self) -> "CalibrationFile":
        if set(self.components) != set(EFFECTS):
            raise ValueError("components")
        rows = len(self.terms) + OF_NETWORK * len(self.networks)
        if [len(row) for row in self.factor] != list(range(1, rows + 1)):
            raise ValueError("factor")
        return self


def read_calibration(text: str, name: str) -> CalibrationFile:
    """Return what a calibration file holds.

    Parameters
    ----------
    text : str
        Its content, JSON.
    name : str
        What to call it in an error.

    Raises
    ------
    InputError
        With each field that is not what it has to be, what was expected there and what came.
    """
    try:
        return CalibrationFile.model_validate_json(text)
    except ValidationError as error:
        found = list(dict.fromkeys(_problems(error)))
        problems = "; ".join([*found[:_SHOWN], *([f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])
        raise InputError(
            f"Expected {name} to be a calibration as `calibrate` and benchmarks/calibrate.py write it, but {problems}. "
            "Write it anew with one of them, or correct it"
        ) from error


def _problems(error: ValidationError) -> Iterator[str]:
    problems = error.errors(include_url=False)
    # A file of another version differs in many fields, for that one reason.
    for each in [each for each in problems if each["loc"] == ("version",)] or problems:
        where, came = each["loc"], reprlib.repr(each["input"])
        if each["type"] == "json_invalid":
            yield f"it is no JSON ({each['ctx']['error']})"
        elif not where and each["type"] == "value_error":
            field = str(each["ctx"]["error"])
            yield f"{field}: expected {CalibrationFile.model_fields[field].description}, but they do not match"
        elif not where:
            yield f"expected an object, got {came}"
        elif each["type"] == "extra_forbidden":
            yield f"{_path(where)}: expected no such field, got {came}"
        elif each["type"] == "missing":
            yield f"{_path(where)}: expected {_expected(where)}, but it is missing"
        else:
            yield f"{_path(where)}: expected {_expected(where)}, got {came}"


def _path(where: tuple[int | str, ...]) -> str:
    words = ""
    for key in where:
        words += f"[{key}]" if isinstance(key, int) else "" if key == "[key]" else f".{key}" if words else key
    return printable_cell(words)


def _expected(where: tuple[int | str, ...]) -> str:
    inside: dict[Any, type[_Entry]] = {"terms": TermEntry, "chosen": ChosenEntry}
    names = [key for key in where if isinstance(key, str)]
    entry = inside.get(names[0]) if len(names) > 1 else None
    field = CalibrationFile.model_fields[names[0]] if entry is None else entry.model_fields[names[1]]
    return str(field.description)
