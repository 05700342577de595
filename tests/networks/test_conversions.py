"""What timm converts as it loads weights: positions for another size of image, names of the authors' own files."""

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks.checkpoints import find_weights, load_checkpoint
from transferscope.networks.loading import outline
from transferscope.networks.zoo import load_zoo

pytestmark = pytest.mark.bounds


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pt"


def vit(**keys):
    return timm.create_model("test_vit", **keys)


def test_embeddings_of_positions_are_resampled_as_timm_does_it(path):
    saved, loaded = vit(img_size=160), vit(img_size=64)
    torch.save({"model": {f"module.{key}": value for key, value in saved.state_dict().items()}}, path)
    with pytest.warns(TransferscopeWarning, match=r"pos_embed, .* from \(1, 101, 64\) to \(1, 17, 64\)"):
        assert load_checkpoint(loaded, path) == []
    # 10 × 10 patches of 16 px in images of 160 px, 4 × 4 in those of 64 px, and a class token
    expected = resample_abs_pos_embed(saved.pos_embed, new_size=[4, 4], old_size=[10, 10], num_prefix_tokens=1)
    torch.testing.assert_close(loaded.pos_embed, expected)
    assert torch.equal(loaded.blocks[3].mlp.fc1.weight, saved.blocks[3].mlp.fc1.weight)


def test_so_are_tables_of_relative_positions(path):
    keys = {"depths": (1, 1, 1, 1), "embed_dim": 24}
    saved = timm.create_model("swin_tiny_patch4_window7_224", **keys)
    loaded = timm.create_model("swin_tiny_patch4_window7_224", img_size=128, window_size=4, **keys)
    torch.save(saved.state_dict(), path)
    # windows of 7 and of 4 patches: (2 · 7 - 1)² and (2 · 4 - 1)² relative positions
    with pytest.warns(TransferscopeWarning, match=r"bias_table and 3 more, .* from \(169, 3\) to \(49, 3\)"):
        load_checkpoint(loaded, path)
    assert torch.equal(loaded.layers[2].blocks[0].mlp.fc1.weight, saved.layers[2].blocks[0].mlp.fc1.weight)


def test_of_two_networks_of_another_size_the_right_one_is_resampled(path):
    student, teacher = vit(), vit()
    torch.save({"student": student.state_dict(), "teacher": teacher.state_dict()}, path)
    with pytest.warns(TransferscopeWarning, match="resampled|teacher is taken, not student"):
        load_checkpoint(loaded := vit(img_size=64), path)
    assert torch.equal(loaded.patch_embed.proj.weight, teacher.patch_embed.proj.weight)


def test_shapes_are_known_without_the_weights(path):
    torch.save(vit().state_dict(), path)
    entry = {"name": "a", "loader": "timm", "model": "test_vit", "kwargs": {"img_size": 64}, "weights": "none"}
    match, said = find_weights(outline(load_zoo([entry])["a"]), path, mapped=True)
    assert match.taken["pos_embed"].shape == (1, 17, 64)
    assert len(said) == 1


def test_a_filter_of_another_size_is_another_architecture(path):
    torch.save(vit().state_dict(), path)
    with pytest.raises(SourceError, match=r"patch_embed\.proj\.weight: network \(64, 3, 8, 8\).*model and kwargs"):
        load_checkpoint(vit(patch_size=8), path)


def test_names_of_the_authors_files_are_read_as_timm_reads_them(path):
    """OpenCLIP keeps timm's towers under `visual.trunk`, with the last layer beside them."""
    saved = vit(num_classes=5)
    state = {f"visual.trunk.{key}": value for key, value in saved.state_dict().items() if not key.startswith("head.")}
    torch.save(state | {"visual.head.proj.weight": saved.head.weight, "logit_scale": torch.ones(())}, path)
    with pytest.warns(TransferscopeWarning) as told:
        drawn = load_checkpoint(loaded := vit(num_classes=5), path)
    assert torch.equal(loaded.blocks[0].attn.qkv.weight, saved.blocks[0].attn.qkv.weight)
    assert drawn == ["head.weight", "head.bias"]  # what fits by its names needs no conversion
    assert any("logit_scale" in str(each.message) for each in told)
