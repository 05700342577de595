"""What is believed where no transfers were measured to learn it from: of several labels an image, and of numbers.

Accuracies are expected by a model that was fitted to measured transfers of classes. Of other tasks it says nothing, so
that the least is assumed that an answer needs:

- A linear head on frozen features (`truncate`) is expected to reach what a linear ridge reaches on images that it is
  not fitted to: its leave-one-out mean average precision, R² or whatever is ranked by, smoothed over depths.
- What is trained (`reinit`, `finetune`, from scratch; `defrost` between these and a head) is expected to reach what
  heads reach on average over all sources, or more, or less. Which source and depth it begins with matters less than to
  a head, by as much as for classes.
- More images are worth about as much as for classes: 0.3 for e times as many, on the scale of the metric (`Link`).
- Errors go together as those of classes do, with variances `WIDENED` times as large.

On transfers of classes as if nothing were known of these (benchmarks/any_task.py) 80 % intervals then hold, with 20
images a class and more, .98 of what heads reached, .81 to .86 of what was trained from a source and .71 of what was
trained from scratch; with fewer images, where leave-one-out heads are worse than heads, .62 to .80. Nobody has measured
this of other tasks.

So protocols are told apart hardly at all before anything was run, and intervals say that. The scratch network, pilots
and measured transfers are observations of this model as of the other, and they are what narrows it.
"""

from functools import cache

import numpy as np

from transferscope.errors import InputError
from transferscope.prediction.calibration import Calibration, Term, load_calibration
from transferscope.prediction.covariates import SCRATCH
from transferscope.runtime.metrics import CLASSIFICATION

WIDENED = 3.0
"""Times the variances that are left for classes."""
_CUT, _TRAINED = ("truncate", "reinit", "finetune"), ("reinit", "finetune")
_COEFFICIENTS = (
    (Term((*_CUT, SCRATCH), ("target_head",)), 1.0, 0.0),
    (Term((*_CUT, SCRATCH), ("log_more",)), 0.3, 0.15),
    (Term(("truncate",), ("source_head",)), 1.0, 0.25),
    (Term(("truncate",), ("head",)), 1.0, 0.25),
    (Term(_TRAINED, ("source_head",)), 0.15, 0.15),
    (Term(_TRAINED, ("head",)), 0.1, 0.1),
)
"""Terms, each with its coefficient and how far that is known (standard deviation)."""


def calibration_for(task: str, calibration: Calibration | None = None) -> Calibration:
    """Return what figures of a task are expected by.

    Parameters
    ----------
    task : str
        Of `metrics.TASKS`.
    calibration : Calibration, optional
        Learnt from transfers of classes; by default the one of this version.

    Raises
    ------
    InputError
        One was given, and the task is another.
    """
    if task == CLASSIFICATION:
        return calibration or load_calibration()
    if calibration is not None:
        raise InputError(
            f"Expected no `calibration` for the task {task}, but got one, which was learnt from accuracies of classes; "
            "leave it out"
        )
    return _without_transfers()


@cache
def _without_transfers() -> Calibration:
    known = load_calibration()
    terms, coefficients, spreads = zip(*_COEFFICIENTS, strict=True)
    return Calibration(
        terms,
        np.array(coefficients),
        np.diag(spreads),
        {name: WIDENED * each for name, each in known.components.items()},
        (WIDENED * known.draw_noise[0], known.draw_noise[1]),
        known.chosen,
        f"nothing; variances are {WIDENED:g} times those of: {known.measured}",
    )
