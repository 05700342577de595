"""What was learnt from measured transfers: a linear model of logits, and how its errors go together.

The logit of an accuracy is the sum of terms (products of covariates, each with a coefficient that is known up to a
Gaussian), of the effects in `effects`, and of the noise of measuring. It is Gaussian throughout, so that what follows
from evidence is in closed form: a linear mixed model (Laird and Ware 1982), its components fitted by restricted maximum
likelihood with a weak prior (benchmarks/calibrate.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from transferscope.errors import InputError
from transferscope.prediction.calibration_file import VERSION, read_calibration
from transferscope.prediction.effects import ACROSS, BASES, EFFECTS, OF_NETWORK, network_columns, shares
from transferscope.results.files import write_file
from transferscope.runtime.regular import read_regular

_FILE = "calibration.json"
_LEAST = 1e-9
"""Variance, in squared logits, of effects that a file says have none: their covariance can be inverted."""
_MOST_BYTES = 2**26
"""Of a file: some three hundred networks."""
_DIGITS = 6
"""Significant ones of a number in the file."""


@dataclass(frozen=True)
class Term:
    """One summand of the predicted logit: a coefficient times a product of covariates, for some protocols.

    Attributes
    ----------
    bases : tuple of str
        Those of `effects.BASES` that it is for; a candidate has as much of it as of their effects.
    factors : tuple of str
        Names in `COVARIATES`; none for a constant.
    """

    bases: tuple[str, ...]
    factors: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """What choosing does to a prediction: the one that looks best is overrated.

    Attributes
    ----------
    shift : float
        Added to the predicted logit of what is chosen.
    scale : float
        How many times as wide its interval is.
    """

    shift: float
    scale: float


@dataclass(frozen=True)
class Calibration:
    """What was learnt from measured transfers.

    Attributes
    ----------
    terms : tuple of Term
    coefficients : numpy.ndarray
        (n_coefficients,), their posterior mean: of the terms, then of each of `networks` its effects as
        `effects.network_columns` has them.
    factor : numpy.ndarray
        (n_coefficients, n_coefficients), lower triangular; times its transpose it is their covariance.
    components : mapping of str to numpy.ndarray
        Each of `effects.EFFECTS` to its (5, 5) covariance between `effects.BASES`, in squared logits.
    draw_noise : (float, float)
        Variance, in squared logits, between draws of 20 images of a class, and by which power of the number of images
        it falls.
    chosen : Chosen
    measured : str
        On what.
    networks : tuple of str
        Whose effects on all targets were learnt too: fingerprints, after `of_sources` the names of sources.
    """

    terms: tuple[Term, ...]
    coefficients: np.ndarray
    factor: np.ndarray
    components: Mapping[str, np.ndarray]
    draw_noise: tuple[float, float]
    chosen: Chosen
    measured: str
    networks: tuple[str, ...] = ()

    def design(self, rows: pd.DataFrame) -> np.ndarray:
        """Return what each coefficient is multiplied by, for each row of `candidates`, (n_rows, n_coefficients)."""
        columns = design(self.terms, rows)
        if not self.networks:
            return columns
        own, source = network_columns(rows), rows["source"].to_numpy(object)
        return np.hstack([columns, *(own * (source == name)[:, None] for name in self.networks)])

    def with_networks(self, fingerprints: Iterable[str]) -> "Calibration":
        """Return a calibration that can learn of these networks too; those new to it have the effects of any network.

        A network whose effects are among the coefficients has no other ones: `effects.covariance` leaves them out.
        """
        new = tuple(sorted(set(fingerprints) - set(self.networks)))
        values, vectors = np.linalg.eigh(block_diag(*(self.components[name] for name in ACROSS)))
        any_network = _lower(vectors * np.sqrt(values.clip(min=_LEAST)))
        return replace(
            self,
            networks=(*self.networks, *new),
            coefficients=np.concatenate([self.coefficients, np.zeros(OF_NETWORK * len(new))]),
            factor=block_diag(self.factor, *[any_network] * len(new)),
        )

    def places_of(self, fingerprints: Mapping[str, str]) -> np.ndarray:
        """Return the places of the coefficients that `of_sources` keeps, in its order."""
        found = [np.arange(len(self.terms))]
        for place in self._known(fingerprints).values():
            found.append(len(self.terms) + OF_NETWORK * place + np.arange(OF_NETWORK))
        return np.concatenate(found)

    def of_sources(self, fingerprints: Mapping[str, str]) -> "Calibration":
        """Return what is known where sources have these names and fingerprints; other networks are left out.

        For beliefs about these sources, not to be saved: other zoos may call other networks so.
        """
        if not self.networks:
            return self
        places = self.places_of(fingerprints)
        return replace(
            self,
            networks=tuple(self._known(fingerprints)),
            coefficients=self.coefficients[places],
            factor=_lower(self.factor[places]),
        )

    def _known(self, fingerprints: Mapping[str, str]) -> dict[str, int]:
        """Return the sources that are known, with the places of their networks."""
        places = {fingerprint: place for place, fingerprint in enumerate(self.networks)}
        return {name: places[each] for name, each in fingerprints.items() if each in places}

    def draw_variance(self, log_per_class: np.ndarray) -> np.ndarray:
        """Return how much one draw of the images trained on varies, in squared logits, of the shape given."""
        return self.draw_noise[0] * np.exp(-self.draw_noise[1] * log_per_class)

    def save(self, path: str | Path) -> Path:
        """Write the file that `load_calibration` reads, and `rank` takes; whole or not at all.

        Raises
        ------
        InputError
            When it cannot be written, or has so many networks that it could not be read again.
        """
        content = self.to_json().encode()
        if len(content) > _MOST_BYTES:
            raise InputError(
                f"Expected a calibration of at most {_MOST_BYTES >> 20} MiB, but with {len(self.networks)} networks it "
                f"has {len(content) >> 20}; learn from the transfers of fewer networks"
            )
        return write_file(path, content)

    def to_json(self) -> str:
        """Return the text of the file that `load_calibration` reads."""
        content: dict[str, Any] = {
            "version": VERSION,
            "measured": self.measured,
            "draw_noise": _rounded(self.draw_noise),
            "chosen": {"shift": _rounded(self.chosen.shift), "scale": _rounded(self.chosen.scale)},
            "components": {name: _rounded(self.components[name]) for name in EFFECTS},
            "terms": [
                {"bases": term.bases, "factors": term.factors, "coefficient": _rounded(coefficient)}
                for term, coefficient in zip(self.terms, self.coefficients[: len(self.terms)], strict=True)
            ],
            "factor": [_rounded(row[: i + 1]) for i, row in enumerate(self.factor)],
        }
        if self.networks:
            effects = self.coefficients[len(self.terms) :].reshape(-1, OF_NETWORK)
            content["networks"] = dict(zip(self.networks, map(_rounded, effects), strict=True))
        lines = (f"{json.dumps(name)}: {_lines(value)}" for name, value in content.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"


def design(terms: Sequence[Term], rows: pd.DataFrame) -> np.ndarray:
    """Return the product of the factors of each term for each row of `candidates`, (n_rows, n_terms)."""
    loaded = shares(rows)
    columns = {name: rows[name].to_numpy(float) for name in {name for term in terms for name in term.factors}}
    found = np.empty((len(rows), len(terms)))
    for i, term in enumerate(terms):
        found[:, i] = loaded[:, [BASES.index(base) for base in term.bases]].sum(axis=1)
        for name in term.factors:
            found[:, i] *= columns[name]
    return found


def _lower(root: np.ndarray) -> np.ndarray:
    """Return a lower triangular matrix that, times its transpose, is `root` times its own."""
    found = np.transpose(np.linalg.qr(root.T, mode="r"))
    # More rows than columns, as where one network has two names: columns of nothing make it square.
    return np.hstack([found, np.zeros((len(found), len(found) - found.shape[1]))])


def load_calibration(path: str | Path | None = None) -> Calibration:
    """Load a calibration; without a path the one that belongs to this version of transferscope.

    Raises
    ------
    InputError
        When the file is not a calibration of this version.
    """
    if path is None:
        return _shipped()
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected `path` to be a calibration file, but it cannot be read ({error})") from error
    return _read(text, str(path))


@cache
def _shipped() -> Calibration:
    return _read(resources.files("transferscope.prediction").joinpath(_FILE).read_text(encoding="utf-8"), _FILE)


def _read(text: str, name: str) -> Calibration:
    content = read_calibration(text, name)
    factor = np.zeros((len(content.factor),) * 2)
    factor[np.tril_indices(len(factor))] = np.concatenate([np.asarray(row, dtype=float) for row in content.factor])
    coefficients = [each.coefficient for each in content.terms]
    return Calibration(
        tuple(Term(each.bases, each.factors) for each in content.terms),
        np.array(coefficients + [effect for effects in content.networks.values() for effect in effects]),
        factor,
        {name: np.array(content.components[name]) for name in EFFECTS},
        content.draw_noise,
        Chosen(content.chosen.shift, content.chosen.scale),
        content.measured,
        tuple(content.networks),
    )


def _rounded(value: Any) -> Any:
    """Return Python's own numbers with `_DIGITS` significant digits."""
    array = np.asarray(value, dtype=float)
    return np.vectorize(lambda x: float(f"{x:.{_DIGITS}g}"), otypes=[float])(array).tolist()


def _lines(value: Any) -> str:
    """Return JSON with a line for each entry of a list or an object."""
    if isinstance(value, dict):
        inside = ",\n ".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in value.items())
        return "{\n " + inside + "\n}"
    if isinstance(value, list) and value and not isinstance(value[0], float):
        return "[\n " + ",\n ".join(json.dumps(each) for each in value) + "\n]"
    return json.dumps(value)
