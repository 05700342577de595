import pytest
import torch

from transferscope.activations.finite import Finite, check_finite
from transferscope.errors import CaptureError

NOT_FINITE = r"layer 'b' are NaN or infinite.*; check the weights"


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    @property
    def device(self):
        return torch.device("cuda", 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_on_the_host_a_batch_is_looked_at_at_once(bad):
    finite = Finite()
    finite.add("a", torch.ones(2))
    with pytest.raises(CaptureError, match=NOT_FINITE):
        finite.add("b", torch.tensor([1.0, bad]))
    with pytest.raises(CaptureError, match=NOT_FINITE):
        check_finite(torch.tensor([1.0, bad]), "b")


@pytest.mark.parametrize("order", [[1.0, float("nan")], [float("nan"), 1.0]])
def test_elsewhere_at_the_end(order):
    finite = Finite()
    finite.check()
    for value in order:
        finite.add("a", torch.ones(1).as_subclass(Elsewhere))
        finite.add("b", torch.tensor([value]).as_subclass(Elsewhere))
    with pytest.raises(CaptureError, match=NOT_FINITE):
        finite.check()
