"""The private names of other libraries that are used, each behind one function: these tests say when they move."""

import pytest
import torch
from codecarbon import OfflineEmissionsTracker
from codecarbon.external.hardware import CPU, BaseHardware
from suffix_kernel import tangents
from torch import nn

from transferscope.protocols.cutting.dividing import _drop_pre_hooks
from transferscope.runtime import power
from transferscope.runtime.trees import flattened, rebuilt


def test_codecarbon_tells_what_hardware_it_has_found(monkeypatch):
    monkeypatch.setenv("CODECARBON_FORCE_CPU_POWER", "90")
    with power._silent():
        tracker = OfflineEmissionsTracker(output_methods=[], gpu_ids=[], log_level="critical", allow_multiple_runs=True)
        found = power._found_by(tracker)
    assert found
    assert all(isinstance(part, BaseHardware) for part in found)
    assert any(isinstance(part, CPU) for part in found)


@pytest.mark.parametrize(("mode", "watts"), [("constant", 65.0), ("cpu_load", 65.0), ("windows_emi", None)])
def test_codecarbon_tells_the_power_of_a_cpu_without_a_meter(tmp_path, mode, watts, monkeypatch):
    monkeypatch.setattr("codecarbon.external.hardware.WindowsEMI", lambda **_options: None, raising=False)
    assert power._estimated_watts(CPU(str(tmp_path), mode, "A CPU", 65)) == watts


def test_torch_takes_nested_outputs_apart_and_puts_them_together():
    tree = {"a": (torch.zeros(1), [2, None]), "b": "text"}
    leaves, structure = flattened(tree)
    assert [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)] == [2, None, "text"]
    assert rebuilt(list(range(len(leaves))), structure) == {"a": (0, [1, 2]), "b": 3}


def test_torch_lets_what_runs_before_a_module_be_dropped():
    layer = nn.utils.spectral_norm(nn.Linear(2, 2))
    _drop_pre_hooks(layer)
    layer.weight_orig = None
    assert layer(torch.zeros(1, 2)).shape == (1, 2)


def test_torch_tells_whether_a_module_is_hooked():
    module = nn.Linear(1, 1)
    assert not tangents._has_hooks(module)
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *_: None)
        assert tangents._has_hooks(module)
        handle.remove()
    assert not tangents._has_hooks(module)
