"""What a pass over the images found of two networks; passes over other images may be added."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from transferscope import similarity
from transferscope.results import labelled
from transferscope.similarity.uncertainty import Cells, linear_cka_cells
from transferscope.verbs.compare.options import Options


@dataclass
class Seen:
    """What a pass over images found, of which passes over others may be added.

    Attributes
    ----------
    names
        Of the layers of both networks.
    n_samples
        Images.
    sums
        Accumulators of linear CKA, one after the other.
    cells
        Of the measures that need the features of all images.
    """

    names: list[list[str]]
    n_samples: int
    sums: list[similarity.MinibatchCKA]
    cells: dict[str, Cells]

    def add(self, other: "Seen") -> None:
        """Add what was seen of the images that follow; with a sum for each batch it is as if it had been seen here."""
        self.n_samples += other.n_samples
        self.sums += other.sums

    def results(self, options: Options) -> dict[str, xr.DataArray]:
        """Return the similarities by measure."""
        cells = dict(self.cells)
        if options.in_batches:
            first, *others = self.sums
            for each in others:
                first.merge(each)
            cells["linear_cka"] = linear_cka_cells(first)
        return {m: _labelled(cells[m], m, self.names, self.n_samples, options) for m in options.measures}


def _labelled(
    cells: Cells, measure: str, names: Sequence[Sequence[str]], n_samples: int, options: Options
) -> xr.DataArray:
    names_x, names_y = names
    return labelled.similarity_array(
        cells.values,
        names_x,
        names_y,
        cells.known(),
        measure=measure,
        n_samples=n_samples,
        reduce=str(options.reduce),
        standardize=int(options.standardize),
        estimator="exact" if measure in options.whole else "minibatch",
        batch_size=options.batch_size,
        permutations=options.permutations,
        seed=options.seed,
    )
