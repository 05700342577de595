"""Parameter transferability (Chen et al. 2022, arXiv 2212.00399): how well pretrained parameters serve, by layer."""

from transferscope.arrays.discrepancy import frechet_distance, maximum_mean_discrepancy
from transferscope.verbs.parameters.explanation import explain, rank_correlations
from transferscope.verbs.parameters.layerwise import transferability
from transferscope.verbs.parameters.study import measure

__all__ = [
    "explain",
    "frechet_distance",
    "maximum_mean_discrepancy",
    "measure",
    "rank_correlations",
    "transferability",
]
