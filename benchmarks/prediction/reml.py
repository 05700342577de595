"""Fit the mixed model of the prediction: its variance components, then its coefficients, in closed form.

Restricted maximum likelihood (Patterson and Thompson 1971): coefficients and effects of networks are integrated out
with their priors, and what is left is maximised over the covariances of all effects, each with a weak inverse-Wishart
prior, by quasi-Newton steps with exact gradients. Targets are independent but for networks, so that no matrix is larger
than one target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from prediction.terms import TERMS, expected_components, prior
from transferscope.prediction.calibration import Term, design
from transferscope.prediction.effects import ACROSS, EFFECTS, OF_NETWORK, loadings, network_columns, patterns

Components = Mapping[str, np.ndarray]
"""Each of `EFFECTS` to its (5, 5) covariance."""
BELIEVED = 6
"""How many targets the expected components count for."""
STEPS = 60
_LOCAL = tuple(name for name in EFFECTS if name not in ACROSS)
_TRIANGLE = torch.tril_indices(5, 5)
_LEAST = 1e-6


@dataclass(frozen=True)
class Block:
    """The measured cells of one target, seen alike."""

    target: str
    weight: float
    whitened: torch.Tensor
    """(n_rows, n_terms + n_network_effects + 1): columns of the terms, of the networks, and the measured logits."""
    loaded: torch.Tensor
    patterns: Mapping[str, torch.Tensor]
    noise: torch.Tensor


@dataclass(frozen=True)
class Prior:
    """Of the coefficients, in the scale of their columns."""

    terms: tuple[Term, ...]
    scale: np.ndarray
    mean: torch.Tensor
    variance: torch.Tensor


@dataclass(frozen=True)
class Fitted:
    """Components, and what each target adds to the normal equations of the coefficients."""

    prior: Prior
    components: Components
    precision: torch.Tensor
    moments: Sequence[tuple[str, torch.Tensor]]
    networks: Sequence[str]
    """MAP/SOURCE; their effects are coefficients behind those of the terms."""

    def coefficients(self, without: str | None = None, networks: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and lower Cholesky factor of the coefficients, without the runs of a target.

        Of the terms, (n_terms,), or of the networks too.
        """
        n_terms = len(self.prior.mean)
        total = sum(
            (moments for target, moments in self.moments if target != without), torch.zeros_like(self.moments[0][1])
        )
        mean = torch.zeros(len(self.precision), dtype=torch.float64)
        mean[:n_terms] = self.prior.mean
        covariance = torch.linalg.inv(self.precision + total[:-1, :-1])
        found = mean + covariance @ (total[:-1, -1] - total[:-1, :-1] @ mean)
        kept = len(mean) if networks else n_terms
        scale = np.concatenate([self.prior.scale, np.ones(kept - n_terms)])
        factor = torch.linalg.cholesky(covariance[:kept, :kept]).numpy()
        return found[:kept].numpy() / scale, factor / scale[:, None]


def fit(
    rows: pd.DataFrame,
    noise: np.ndarray,
    weights: np.ndarray,
    terms: Sequence[Term] = TERMS,
    components: Components | None = None,
    steps: int = STEPS,
) -> Fitted:
    """Fit components, unless they are given, and prepare the coefficients.

    Parameters
    ----------
    rows : pandas.DataFrame
        Measured cells as `truth.load` returns them.
    noise : numpy.ndarray
        (n_rows,), variance of the measured logits.
    weights : numpy.ndarray
        (n_rows,), how often the rows of a target, seen alike, count; equal within each.
    terms : sequence of Term
    components : mapping, optional
        To begin with; with no `steps`, to keep.
    steps : int
        Of the optimiser.
    """
    believed = _prior(rows, terms)
    blocks, networks = _blocks(rows, noise, weights, believed)
    parameters = _pack(components or expected_components()).requires_grad_(True)
    if steps:
        optimiser = torch.optim.LBFGS(
            [parameters], max_iter=steps, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-3
        )

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            value = _loss(parameters, blocks, believed, len(networks))
            value.backward()
            return value

        optimiser.step(loss)
    with torch.no_grad():
        found = _unpack(parameters)
        moments = [(block.target, _moments(block, found)[0]) for block in blocks]
        return Fitted(
            believed, {name: each.numpy() for name, each in found.items()},
            _precision(found, believed, len(networks))[0], moments, networks,
        )  # fmt: skip


def _prior(rows: pd.DataFrame, terms: Sequence[Term]) -> Prior:
    columns = design(terms, rows)
    scale = np.sqrt((columns**2).sum(axis=0) / np.maximum((columns != 0).sum(axis=0), 1)) + 1e-9
    # A column that no row has keeps its prior in the units of the covariate.
    scale = np.where((columns != 0).any(axis=0), scale, 1.0)
    means, variances = np.array([prior(term) for term in terms]).T
    return Prior(tuple(terms), scale, torch.tensor(means * scale), torch.tensor(variances))


def _blocks(
    rows: pd.DataFrame, noise: np.ndarray, weights: np.ndarray, believed: Prior
) -> tuple[list[Block], Sequence[str]]:
    columns = design(believed.terms, rows) / believed.scale
    named = [f"{name}/{source}" if source else "" for name, source in zip(rows["map"], rows["source"], strict=True)]
    networks = sorted(set(named) - {""})
    rows = rows.assign(position=np.arange(len(rows)))
    blocks = []
    for (_, target, _), part in rows.groupby(["map", "target", "ahead"], sort=False):
        at, loaded = part["position"].to_numpy(), loadings(part)
        own = np.zeros((len(part), len(networks), OF_NETWORK))
        for row, (place, columns_of_network) in enumerate(zip(at, network_columns(part), strict=True)):
            if named[place]:
                own[row, networks.index(named[place])] = columns_of_network
        logits = part["logit"].to_numpy(float)[:, None]
        blocks.append(
            Block(
                target, float(weights[at[0]]),
                torch.tensor(np.hstack([columns[at], own.reshape(len(part), -1), logits])), torch.tensor(loaded),
                {name: torch.tensor(each) for name, each in patterns(part).items()},
                torch.tensor(noise[at]),
            )
        )  # fmt: skip
    return blocks, networks


def _moments(block: Block, components: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted cross products of the whitened columns, and the log determinant of the covariance."""
    covariance = torch.diag(block.noise)
    for name in _LOCAL:
        covariance = covariance + block.patterns[name] * (block.loaded @ components[name] @ block.loaded.T)
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, block.whitened, upper=False)
    return block.weight * white.T @ white, block.weight * 2 * torch.log(torch.diag(root)).sum()


def _precision(
    components: Mapping[str, torch.Tensor], believed: Prior, networks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prior precision of coefficients and network effects, and the log determinant of its inverse."""
    network = torch.block_diag(*(components[name] for name in ACROSS))
    precision = torch.block_diag(torch.diag(1 / believed.variance), *[torch.linalg.inv(network)] * networks)
    return precision, torch.log(believed.variance).sum() + networks * torch.logdet(network)


def _loss(parameters: torch.Tensor, blocks: Sequence[Block], believed: Prior, networks: int) -> torch.Tensor:
    components = _unpack(parameters)
    parts = [_moments(block, components) for block in blocks]
    total, determinant = sum(part[0] for part in parts), sum(part[1] for part in parts)
    precision, own = _precision(components, believed, networks)
    mean = torch.zeros(len(precision), dtype=torch.float64)
    mean[: len(believed.mean)] = believed.mean
    cross, squares = total[:-1, -1], total[:-1, :-1]
    root = torch.linalg.cholesky(precision + squares)
    solved = torch.linalg.solve_triangular(root, (cross - squares @ mean)[:, None], upper=False)
    residual = total[-1, -1] - 2 * mean @ cross + mean @ squares @ mean - (solved**2).sum()
    return 0.5 * (residual + determinant + own + 2 * torch.log(torch.diag(root)).sum()) - _log_prior(components)


def _log_prior(components: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the log density of inverse-Wishart priors around the expected components, but for a constant."""
    expected = expected_components()
    return sum(
        -0.5 * (BELIEVED + 6) * torch.logdet(each)
        - 0.5 * BELIEVED * torch.trace(torch.linalg.solve(each, torch.tensor(expected[name])))
        for name, each in components.items()
    )


def _pack(components: Mapping[str, np.ndarray]) -> torch.Tensor:
    roots = [np.linalg.cholesky(components[name] + _LEAST * np.eye(5)) for name in EFFECTS]
    return torch.tensor(np.concatenate([root[np.tril_indices(5)] for root in roots]))


def _unpack(parameters: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {}
    for name, part in zip(EFFECTS, parameters.split(15), strict=True):
        root = torch.zeros(5, 5, dtype=torch.float64)
        root[_TRIANGLE[0], _TRIANGLE[1]] = part
        found[name] = root @ root.T + _LEAST * torch.eye(5, dtype=torch.float64)
    return found
