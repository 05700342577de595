"""The register of similarity measures: what each is, and all pairs of layers by it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress

from array_api_compat import device

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.linalg import u_center
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.similarity.cca import cca_pairs, subspace_from_factors, svcca_pairs
from transferscope.similarity.neighbors import NEIGHBORS, information_imbalance_pairs, mutual_knn_pairs
from transferscope.similarity.procrustes import procrustes_pairs
from transferscope.similarity.pwcca import pwcca_pairs
from transferscope.similarity.rbf import rbf_cka_pairs
from transferscope.similarity.representation import Pairs, Report, Representation, derived, products, silent, unit
from transferscope.similarity.rsa import rsa_pairs


@dataclass(frozen=True)
class Measure:
    """One similarity measure with its default options."""

    name: str
    title: str
    definition: str
    range: str
    invariances: str
    """Maps of the features of one layer that change nothing; all measures follow the samples, in any order."""
    cost: str
    """Operations per layer, then per pair of layers, for n samples and p features."""
    paper: str
    min_samples: int
    """Fewest samples of which the measure says anything."""
    kernel: Pairs
    """All pairs of layers that are not constant and have enough samples."""
    directions: Callable[[Representation], int] | None = None
    """How many directions of a layer are compared, where too many together leave nothing to compare."""

    def pairs(self, xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent) -> Array:
        """Compare every layer of `xs` with every layer of `ys`; what a layer contributes is derived once and kept.

        `report` is told, as `report(done, total)`, of the layers and then of the pairs, where these take time.

        Returns
        -------
        Array
            (len(xs), len(ys)), float64; NaN where the measure is undefined: constant features, fewer samples than
            `min_samples`, or a layer without the structure that it compares.

        Raises
        ------
        InputError
            When there are no layers, or they differ in n_samples.

        Warns
        -----
        TransferscopeWarning
            Once, with the number of pairs that are NaN or that `uninformative` names.
        """
        _check(xs, ys)
        defined = [[self._defined(layer) for layer in side] for side in (xs, ys)]
        live_x, live_y = ([*compress(side, mask)] for side, mask in zip((xs, ys), defined, strict=True))
        if live_x and live_y:
            values = self.kernel(live_x, live_y, report)
            xp = array_namespace(values)
            for axis, mask in enumerate(defined):
                # Every layer has a place in the full matrix; that of one left out holds another's numbers for now.
                places = [max(0, count - 1) for count in accumulate(map(int, mask))]
                values = xp.take(values, xp.asarray(places, device=device(values)), axis=axis)
            absent = xp.asarray([[not (x and y) for y in defined[1]] for x in defined[0]], device=device(values))
            values = xp.where(absent, xp.full_like(values, math.nan), values)
        else:
            like = xs[0].like
            xp = array_namespace(like)
            values = xp.full((len(xs), len(ys)), math.nan, dtype=xp.float64, device=device(like))
        nothing = self.uninformative(xs, ys)
        undefined = xp.isnan(values)
        if xp.any(undefined | nothing):
            bad, nan = (int(xp.sum(xp.astype(each, xp.int64))) for each in (undefined | nothing, undefined))
            directions = " and more than the directions of the two layers together" if self.directions else ""
            warnings.warn(
                f"{self.title} is not informative for {bad} of {len(xs) * len(ys)} layer pairs, {nan} of them NaN: "
                f"features are constant, or n_samples = {xs[0].n_samples} is too few (needed: "
                f"{self.min_samples}{directions}); leave these layers out or use more samples",
                TransferscopeWarning,
                stacklevel=2,
            )
        return values

    def uninformative(self, xs: Sequence[Representation], ys: Sequence[Representation]) -> Array:
        """Which pairs, (len(xs), len(ys)) of bool, have a number that means nothing, whatever it is.

        Constant features; fewer samples than `min_samples`; for the CCA family more than n_samples - 1 directions
        together, of which some correlate perfectly by counting alone.

        Raises
        ------
        InputError
            When there are no layers, or they differ in n_samples.
        """
        n_samples = _check(xs, ys)
        xp = array_namespace(*(layer.like for layer in (*xs, *ys)))
        # A layer of which nothing can be said fills all directions by itself.
        used = [[self._directions(layer) for layer in side] for side in (xs, ys)]
        return xp.asarray([[i + j > n_samples - 1 for j in used[1]] for i in used[0]], device=device(xs[0].like))

    def _defined(self, layer: Representation) -> bool:
        return layer.n_samples >= self.min_samples and not layer.constant

    def _directions(self, layer: Representation) -> int:
        if not self._defined(layer):
            return layer.n_samples
        return self.directions(layer) if self.directions else 0


def _check(xs: Sequence[Representation], ys: Sequence[Representation]) -> int:
    """Return the n_samples of all layers; raise InputError when there are none or they differ in it."""
    if not xs or not ys:
        raise InputError("Expected `xs` and `ys` to hold one layer at least but got none; pass at least one each")
    counts = sorted({layer.n_samples for layer in (*xs, *ys)})
    if len(counts) > 1:
        raise InputError(
            f"Expected all layers to have the same n_samples but got {', '.join(map(str, counts))}; "
            "row i of all must come from the same image"
        )
    return counts[0]


def _linear_cka_pairs(xs: Sequence[Representation], ys: Sequence[Representation], report: Report = silent) -> Array:
    us, vs = derived(xs, ys, lambda layer: layer.matrix("linear_cka", _unit_gram), report)
    return products(us, vs)


def _unit_gram(layer: Representation) -> Array:
    xp = array_namespace(layer.gram)
    # Structure without any unbiased HSIC leaves rounding behind, which must not be divided by itself.
    rounding = layer.n_samples * float(xp.finfo(xp.float64).eps) * float(xp.linalg.matrix_norm(layer.gram))
    return unit(u_center(layer.gram), floor=rounding)


def _rank(layer: Representation) -> int:
    return layer.factors.left.shape[1]


def _svcca_rank(layer: Representation) -> int:
    return subspace_from_factors(layer.factors).shape[1]


_RIGID = "shifts, orthogonal maps, isotropic scaling"

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            name="linear_cka",
            title="linear CKA",
            definition="HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of K = XXᵀ and L = YYᵀ, debiased HSIC",
            range="≤ 1; 0 when independent, can be negative",
            invariances=_RIGID,
            cost="n²p, then n²",
            paper="Kornblith et al. 2019; Song et al. 2012",
            min_samples=4,
            kernel=_linear_cka_pairs,
        ),
        Measure(
            name="rbf_cka",
            title="RBF-CKA",
            definition="the same with K = exp(−d²/2σ²), d Euclidean distances, σ half their median",
            range="≤ 1; 0 when independent, can be negative",
            invariances=_RIGID,
            cost="n²p, then n²",
            paper="Kornblith et al. 2019; Song et al. 2012",
            min_samples=4,
            kernel=rbf_cka_pairs,
        ),
        Measure(
            name="cca",
            title="mean CCA",
            definition="mean canonical correlation ρᵢ: singular values of U₁ᵀU₂, U left singular vectors, centred",
            range="0 to 1",
            invariances="shifts, invertible linear maps",
            cost="np·min(n, p), then nk² + k³ for k directions",
            paper="Hotelling 1936",
            min_samples=3,
            kernel=cca_pairs,
            directions=_rank,
        ),
        Measure(
            name="svcca",
            title="SVCCA",
            definition="mean CCA of the fewest leading singular directions that hold 0.99 of the variance",
            range="0 to 1",
            invariances=_RIGID,
            cost="np·min(n, p), then nk² + k³ for k directions",
            paper="Raghu et al. 2017",
            min_samples=3,
            kernel=svcca_pairs,
            directions=_svcca_rank,
        ),
        Measure(
            name="pwcca",
            title="PWCCA",
            definition="Σαᵢρᵢ / Σαᵢ, αᵢ = Σⱼ abs⟨hᵢ, xⱼ⟩, hᵢ the canonical variates and xⱼ the centred features of x",
            range="0 to 1",
            invariances="of x: shifts, isotropic scaling; of y: shifts, invertible linear maps",
            cost="np·min(n, p), then nk² + k²p for k directions",
            paper="Morcos et al. 2018",
            min_samples=3,
            kernel=pwcca_pairs,
            directions=_rank,
        ),
        Measure(
            name="procrustes",
            title="orthogonal Procrustes",
            definition="nuclear norm of XᵀY, features centred and of Frobenius norm 1 (squared distance: 2 − 2×)",
            range="0 to 1; rises with p/n",
            invariances=_RIGID,
            cost="np·min(n, p), then nk² + k³ for k directions",
            paper="Schönemann 1966; Ding et al. 2021",
            min_samples=2,
            kernel=procrustes_pairs,
        ),
        Measure(
            name="rsa",
            title="RSA",
            definition="Spearman correlation, over pairs of samples, of 1 − Pearson correlation of their features",
            range="−1 to 1; 0 when independent",
            invariances="isotropic scaling, reordering features; scaling and shifting samples one by one",
            cost="n²p + n² log n, then n²",
            paper="Kriegeskorte et al. 2008",
            min_samples=3,
            kernel=rsa_pairs,
        ),
        Measure(
            name="mutual_knn",
            title="mutual k-NN",
            definition=f"mean share of the {NEIGHBORS} nearest neighbours (Euclidean) that a sample has in both",
            range=f"0 to 1; {NEIGHBORS}/(n−1) when independent",
            invariances=_RIGID,
            cost="n²p + n² log n, then n²",
            paper="Huh et al. 2024",
            min_samples=NEIGHBORS + 2,
            kernel=mutual_knn_pairs,
        ),
        Measure(
            name="information_imbalance",
            title="information imbalance",
            definition="Δ(x → y) = 2/n × mean rank in y (Euclidean) of each sample's nearest neighbour in x",
            range="2/n (x predicts y) to 2; 1 when independent",
            invariances=_RIGID,
            cost="n²p + n² log n, then n²",
            paper="Glielmo et al. 2022",
            min_samples=3,
            kernel=information_imbalance_pairs,
        ),
    )
}
"""Every similarity measure by name. All but information imbalance are higher for what is more similar."""
