import numpy as np
import pytest
from threadpoolctl import threadpool_info

from transferscope.runtime.threads import SMALL, suited_to


def blas_threads():
    np.eye(2) @ np.eye(2)
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(("n_samples", "limited"), [(10, True), (SMALL, True), (SMALL + 1, False)])
def test_small_matrices_have_one_thread_and_then_everything_is_as_before(n_samples, limited):
    before = blas_threads()
    with suited_to(n_samples):
        assert blas_threads() == ({1} if limited else before)
    assert blas_threads() == before
