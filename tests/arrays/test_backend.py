import logging
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest
import torch

from transferscope.arrays import backend
from transferscope.errors import DeviceError, InputError


@pytest.fixture(autouse=True)
def _fresh_process():
    """What is said once per process is said once per test here."""
    backend._say_once.cache_clear()


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_namespace_is_that_of_the_arrays(xp):
    X = xp.ones((2, 3))
    made = backend.array_namespace(X, X).zeros((2,))
    assert type(made) is type(X)


def test_mixed_namespaces_raise():
    with pytest.raises(InputError, match=r"one library but got numpy\.ndarray, array_api_strict"):
        backend.array_namespace(np.ones(2), array_api_strict.ones(2))


def test_mixed_devices_raise():
    there = array_api_strict.Device("device1")
    with pytest.raises(InputError, match="one device"):
        backend.array_namespace(array_api_strict.ones(2), array_api_strict.ones(2, device=there))


@pytest.mark.parametrize(("thing", "advice"), [([[1.0]], "numpy.asarray"), (torch.ones(2), "from_torch"), (1.0, "as")])
def test_what_is_no_array_raises_with_advice(thing, advice):
    with pytest.raises(InputError, match=advice):
        backend.array_namespace(np.ones(2), thing)


def test_arrays_need_neither_torch_nor_cupy():
    code = (
        "import sys, numpy; from transferscope import similarity, transferability; "
        "from transferscope.arrays import backend; "
        "backend.to_numpy(numpy.ones(2)); similarity.linear_cka(numpy.eye(5), numpy.eye(5)); "
        "assert not {'torch', 'cupy', 'xarray'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_falls_back_to_the_cpu_and_says_so_once(no_gpu, caplog):
    with caplog.at_level(logging.INFO, logger="transferscope"):
        assert backend.resolve_device("auto") == backend.resolve_device("auto") == torch.device("cpu")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "CPU" in caplog.text


def test_auto_takes_the_gpu_in_silence(two_gpus, caplog):
    with caplog.at_level(logging.INFO, logger="transferscope"):
        assert backend.resolve_device("auto") == torch.device("cuda", 1)
    assert not caplog.records


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_explicit_device(two_gpus, device, expected):
    assert backend.resolve_device(device) == torch.device(expected)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_explicit_cuda_without_a_gpu_raises(no_gpu, device):
    with pytest.raises(DeviceError, match=rf"'{device}'.*only 'cpu'.*pass 'cpu' or 'auto'"):
        backend.resolve_device(device)


def test_missing_index_names_what_is_there(two_gpus):
    with pytest.raises(DeviceError, match=r"'cuda:2'.*'cuda:0', 'cuda:1'"):
        backend.resolve_device("cuda:2")


@pytest.mark.parametrize("device", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "", None, 0])
def test_unknown_device_lists_the_choices(device):
    with pytest.raises(InputError, match="'auto', 'cpu', 'cuda' or 'cuda:N'"):
        backend.resolve_device(device)


def test_from_torch_shares_memory_on_the_cpu():
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3)
    array = backend.from_torch(tensor)
    assert isinstance(array, np.ndarray)
    assert array.ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_from_torch_upcasts_half_precision(dtype):
    array = backend.from_torch(torch.tensor([0.5, -3.0], dtype=dtype))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [0.5, -3.0])


class _CudaTensor:
    """Stands in for a CUDA tensor where there is none."""

    is_cuda = True
    dtype = torch.float32

    def detach(self):
        return self

    def cpu(self):
        return torch.tensor([1.0, 2.0])


def test_from_torch_without_cupy_copies_to_the_host_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    with caplog.at_level(logging.INFO, logger="transferscope"):
        for _ in range(2):
            np.testing.assert_array_equal(backend.from_torch(_CudaTensor()), [1.0, 2.0])
    assert len(caplog.records) == 1
    assert "cuda12" in caplog.text


@pytest.mark.gpu
def test_from_torch_shares_memory_on_the_gpu():
    cupy = pytest.importorskip("cupy")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensor = torch.ones(1 << 24, device="cuda").cumsum(0)
        array = backend.from_torch(tensor)
    assert isinstance(array, cupy.ndarray)
    assert array.data.ptr == tensor.data_ptr()
    assert float(array[-1]) == float(tensor[-1])


def test_to_numpy_and_back(xp):
    host = np.arange(6.0).reshape(2, 3)
    array = backend.from_numpy(host, like=xp.ones(1))
    assert type(array) is type(xp.ones(1))
    np.testing.assert_array_equal(backend.to_numpy(array), host)


def test_to_numpy_copies_nothing_that_is_on_the_host():
    host, tensor = np.ones(2), torch.ones(2)
    assert backend.to_numpy(host) is host
    assert backend.to_numpy(tensor).ctypes.data == tensor.data_ptr()


# --- CuPy on torch's stream, fewer digits -------------------------------------------------------------------------


def test_without_a_gpu_nothing_changes_and_fewer_digits_are_said_to_be_float32(monkeypatch, caplog):
    monkeypatch.setattr(backend, "has_cupy", lambda: False)
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        with backend.stream_of(device), caplog.at_level("INFO", "transferscope"):
            for _ in range(2):
                with backend.product_precision("tf32", device):
                    X = np.full((2, 2), 1 + 2.0**-20, dtype=np.float32)
                    assert (X @ X)[0, 0] == np.float32(2 * (1 + 2.0**-20) ** 2)
    assert caplog.text.count("products are in float32") == 1


def test_an_unknown_precision_raises():
    with (
        pytest.raises(InputError, match="`precision` to be 'float32', 'tf32' or 'bfloat16' but got 'half'"),
        backend.product_precision("half", torch.device("cpu")),
    ):
        pass


def test_cupy_that_fails_to_import_is_no_cupy(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "cupy":
                raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    backend.has_cupy.cache_clear()
    try:
        assert not backend.has_cupy()
    finally:
        backend.has_cupy.cache_clear()


@pytest.mark.gpu
def test_cupy_works_on_the_stream_of_torch():
    cupy = pytest.importorskip("cupy")
    if not backend.has_cupy():
        pytest.skip("needs a GPU")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), backend.stream_of(torch.device("cuda", torch.cuda.current_device())):
        assert cupy.cuda.get_current_stream().ptr == stream.cuda_stream


FEWER_DIGITS = [("float32", 2.0**-20), ("tf32", 2.0**-10), ("bfloat16", 2.0**-7)]


def error_of(product, X):
    """Root mean square error of a product against float64, in deviations of its entries."""
    exact = X.astype(np.float64) @ X.T.astype(np.float64)
    return np.sqrt(np.mean((product - exact) ** 2) / np.mean(exact**2))


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "digits"), FEWER_DIGITS)
def test_fewer_digits_round_the_factors(precision, digits):
    cupy = pytest.importorskip("cupy")
    if not backend.has_cupy():
        pytest.skip("needs a GPU")
    X = np.random.default_rng(0).standard_normal((256, 4096), dtype=np.float32)
    on_gpu = cupy.asarray(X)
    with backend.product_precision(precision, torch.device("cuda", 0)):
        error = error_of(backend.row_products(on_gpu, on_gpu).get(), X)
    assert error < digits
    assert precision == "float32" or error > digits / 100
    assert error_of(backend.row_products(on_gpu, on_gpu).get(), X) < 2.0**-20


def test_factors_of_seven_digits_and_no_lasting_switch():
    """What the GPU does to tensors, on the CPU: it knows no TF32, where nothing happens."""
    X = np.random.default_rng(0).standard_normal((20, 300), dtype=np.float32)
    before = torch.backends.cuda.matmul.fp32_precision
    products = {kind: backend._rounded_products(*2 * [torch.from_numpy(X)], kind) for kind in ("tf32", "bfloat16")}
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert error_of(products["tf32"].numpy(), X) < 2.0**-20
    assert 2.0**-13 < error_of(products["bfloat16"].numpy(), X) < 2.0**-7
    assert products["bfloat16"].dtype == torch.float32


def test_row_products_are_those_of_the_namespace(xp):
    X, Y = np.arange(12.0).reshape(4, 3), np.ones((2, 3))
    found = backend.row_products(xp.asarray(X), xp.asarray(Y))
    assert type(found) is type(xp.ones(1))
    np.testing.assert_array_equal(backend.to_numpy(found), X @ Y.T)
