"""What is read from timm's source is what timm says when it is imported."""

import subprocess
import sys

import pytest
import timm

from transferscope.networks import timm_source

NAMES = timm.list_models()


def has_weights(name):
    config = timm.get_pretrained_cfg(name)
    return config is not None and bool(config.has_weights)


@pytest.mark.bounds
def test_every_architecture_is_found_and_no_weights_are_made_up():
    assert [name for name in NAMES if not timm_source.registers(name)] == []
    some = NAMES[::10]
    certain = [name for name in some if timm_source.has_weights(name)]
    assert [name for name in certain if not has_weights(name)] == []
    # The others are left to timm itself, which takes longer.
    assert len(certain) > 0.9 * len([name for name in some if has_weights(name)])


@pytest.mark.parametrize("name", ["", "resnet", "resnet18.a1_in1k", "no.*", "resnet18(", "hf-hub:timm/resnet18"])
def test_of_other_names_nothing_is_certain(name):
    assert not timm_source.registers(name)
    assert not timm_source.has_weights(name)


@pytest.mark.parametrize(
    ("configurations", "certain"),
    [
        ("'net.one': _cfg(url='https://a/(b)'),", True),
        ("'net': _cfg(hf_hub_id='timm/'),", True),
        ("'net.one': _cfg(url=''),\n    'net.two': _cfg(file='b'),", True),
        ("'net.one': _cfg(),", False),
        ("'net.one': _cfg(url=''),", False),
        ("'net.one': _cfg(url=PLACE),", False),
        ("'net.one': _cfg(url='https://a'),\n    'net.two*': _cfg(),", False),
        ("'net.one': _cfg(url='https://a('),", False),
        ("'other.one': _cfg(url='https://a'),", False),
        ("'net.one': SOMEWHERE,", False),
    ],
)
def test_weights_are_certain_where_the_configuration_says_so_plainly(tmp_path, monkeypatch, configurations, certain):
    (tmp_path / "timm" / "models").mkdir(parents=True)
    (tmp_path / "timm" / "__init__.py").touch()
    (tmp_path / "timm" / "models" / "broken.py").write_bytes(b"\xff")
    (tmp_path / "timm" / "models" / "net.py").write_text(
        f"default_cfgs = generate_default_cfgs({{\n    {configurations}\n}})\n\n"
        "@register_model\ndef net(**kwargs):\n    ...\n"
    )
    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.syspath_prepend(tmp_path)
    timm_source._registered.cache_clear()
    try:
        assert timm_source.registers("net")
        assert timm_source.has_weights("net") == certain
    finally:
        timm_source._registered.cache_clear()


def test_a_zoo_of_plain_models_is_checked_without_torch():
    code = (
        "import sys; from transferscope.networks.checking import check_sources; "
        "from transferscope.networks.zoo import load_zoo; "
        "zoo = load_zoo([{'name': n, 'loader': 'timm', 'model': n} for n in ('resnet18', 'vit_tiny_patch16_224')]); "
        "assert check_sources(zoo) == ([], []); assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
