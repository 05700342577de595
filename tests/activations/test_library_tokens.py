"""Tokens of networks of transformers and open_clip: patches, class and register tokens are those of the library."""

import pytest
import torch
from small_models import save_open_clip, save_transformers

from transferscope.activations.capture import capture, resolve_stages
from transferscope.networks.loading import load_network
from transferscope.networks.zoo import load_zoo

PATCHES = 16  # 4 × 4 patches of 8 pixels in images of 32


@pytest.mark.parametrize(
    ("loader", "name", "others"),
    [
        # others: tokens before the patches, the class token first
        ("transformers", "vit", 1),
        ("transformers", "beit", 1),
        ("transformers", "dinov2", 1),
        ("transformers", "dinov2-registers", 5),
        ("transformers", "clip", 1),
        ("transformers", "siglip", 0),
        ("open_clip", "vit", 1),
    ],
)
def test_patches_and_class_tokens_are_told_apart(loader, name, others, tmp_path):
    pytest.importorskip(loader)
    save = save_transformers if loader == "transformers" else save_open_clip
    entry = {"name": name, "loader": loader, "model": str(save(name, tmp_path))}
    net = load_network(load_zoo([entry])[name]).module
    images = torch.randn(17, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # as many as tokens
    layer = resolve_stages(net, "auto", images, cuts_only=True)[2].layer  # the second block
    kept = {}
    handle = net.get_submodule(layer).register_forward_hook(lambda *call: kept.update(tokens=call[-1]))
    with torch.no_grad():
        net(images)
    handle.remove()
    tokens = kept["tokens"][0] if isinstance(kept["tokens"], tuple) else kept["tokens"]
    assert tokens.shape == (17, others + PATCHES, 16)
    with capture(net, [layer], reduce="positions") as found:
        net(images)
    torch.testing.assert_close(found[layer], tokens[:, others:].reshape(-1, 16))
    if others:
        with capture(net, [layer], reduce="class_token") as found:
            net(images)
        torch.testing.assert_close(found[layer], tokens[:, 0])
