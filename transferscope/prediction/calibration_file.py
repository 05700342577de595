"""What a calibration file may hold; every problem of a file is reported in one pass, each with its field."""

import reprlib
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from transferscope.errors import InputError
from transferscope.prediction.covariates import COVARIATES, CUT_PROTOCOLS, SCRATCH

VERSION = 1
"""Of the file format."""

_PROTOCOLS = (*CUT_PROTOCOLS, SCRATCH)


def _one_of(choices: tuple[str, ...]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in choices:
            raise ValueError("unknown")
        return name

    return AfterValidator(check)


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("falling")
    return pair


def _around_zero(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= 0 <= pair[1]:
        raise ValueError("not around 0")
    return pair


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Pair = tuple[_Number, _Number]
_ProtocolName = Annotated[str, _one_of(_PROTOCOLS)]
_CovariateName = Annotated[str, _one_of(tuple(COVARIATES))]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# The descriptions are what an error message says was expected.
class TermEntry(_Entry):
    """One summand of the predicted logit."""

    protocols: Annotated[tuple[_ProtocolName, ...], Field(min_length=1)] = Field(
        description=f"a list with some of {', '.join(_PROTOCOLS)}"
    )
    factors: tuple[_CovariateName, ...] = Field(description=f"a list with some of {', '.join(COVARIATES)}")
    coefficient: _Number = Field(description="a finite number")


class CalibrationFile(_Entry):
    """A whole file; the fields are those of `calibration.Calibration`."""

    version: Annotated[int, Field(ge=VERSION, le=VERSION)] = Field(description=f"{VERSION}")
    level: _Number = Field(description="a finite number")
    terms: tuple[TermEntry, ...] = Field(description="a list of terms with protocols, factors and coefficient")
    errors: dict[_ProtocolName, Annotated[_Pair, AfterValidator(_around_zero)]] = Field(
        description=f"for each of {', '.join(_PROTOCOLS)} two finite numbers, the first at most 0, the other at least 0"
    )
    growth: Annotated[_Number, Field(ge=0)] = Field(description="a finite number of at least 0")
    contrast: Annotated[_Number, Field(gt=0)] = Field(description="a finite number above 0")
    ranges: dict[_CovariateName, Annotated[_Pair, AfterValidator(_ordered)]] = Field(
        description=f"for some of {', '.join(COVARIATES)} two finite numbers, the first not above the other"
    )
    measured: Annotated[str, Field(min_length=1)] = Field(description="words on what was measured")

    @field_validator("errors")
    @classmethod
    def _complete(cls, errors: dict[str, Any]) -> dict[str, Any]:
        if any(protocol not in errors for protocol in _PROTOCOLS):
            raise ValueError("incomplete")
        return errors


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
        problems = "; ".join(dict.fromkeys(_problems(error)))
        raise InputError(
            f"Expected {name} to be a calibration as benchmarks/calibrate.py writes it, but {problems}. "
            "Write it anew with that script, or correct it"
        ) from error


def _problems(error: ValidationError) -> Iterator[str]:
    problems = error.errors(include_url=False)
    # A file of another version differs in many fields, for that one reason.
    for each in [each for each in problems if each["loc"] == ("version",)] or problems:
        where, came = each["loc"], reprlib.repr(each["input"])
        if each["type"] == "json_invalid":
            yield f"it is no JSON ({each['ctx']['error']})"
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
    return words


def _expected(where: tuple[int | str, ...]) -> str:
    inside = where[0] == "terms" and len(where) > 2
    field = TermEntry.model_fields[str(where[2])] if inside else CalibrationFile.model_fields[str(where[0])]
    return str(field.description)
