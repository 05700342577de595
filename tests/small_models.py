"""Small randomly drawn models of transformers and open_clip, one of each family, saved as the libraries save them."""

import json

import safetensors.torch
import torch

SIDE = 32
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20,
        "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # fmt: skip
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
       "image_size": SIDE, "patch_size": 8}  # fmt: skip
DINO = {key: value for key, value in VIT.items() if key != "intermediate_size"}
SWIN = {"image_size": SIDE, "patch_size": 2, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 2],
        "window_size": 4}  # fmt: skip
CONVNEXT = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 2, 1], "layer_type": "basic"}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROP = {"size": {"shortest_edge": 36}, "crop_size": {"height": SIDE, "width": SIDE}}

TRANSFORMERS = {
    # name: model class, configuration class, settings, processor, its settings
    "vit": ("ViTForImageClassification", "ViTConfig", {**VIT, "num_labels": 5}, "ViTImageProcessor", SQUARE),
    "vit-tower": ("ViTModel", "ViTConfig", VIT, "ViTImageProcessor", SQUARE),
    "dinov2": ("Dinov2Model", "Dinov2Config", DINO, "BitImageProcessor", CROP),
    "dinov2-registers": (
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINO, "BitImageProcessor", CROP,
    ),
    "swin": ("SwinForImageClassification", "SwinConfig", {**SWIN, "num_labels": 5}, "ViTImageProcessor", SQUARE),
    "swin-tower": ("SwinModel", "SwinConfig", SWIN, "ViTImageProcessor", SQUARE),
    "convnext": (
        "ConvNextForImageClassification", "ConvNextConfig", {**CONVNEXT, "num_labels": 5}, "ConvNextImageProcessor",
        {"size": {"shortest_edge": SIDE}},
    ),
    "siglip": (
        "SiglipModel", "SiglipConfig", {"text_config": TEXT, "vision_config": VIT}, "SiglipImageProcessor", SQUARE,
    ),
    "clip": (
        "CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": VIT, "projection_dim": 12},
        "CLIPImageProcessor", CROP,
    ),
    "beit": ("BeitForImageClassification", "BeitConfig", {**VIT, "num_labels": 5}, "BeitImageProcessor",
             {**SQUARE, "do_center_crop": False}),
    "resnet": (
        "ResNetForImageClassification", "ResNetConfig", {**RESNET, "num_labels": 5}, "ConvNextImageProcessor",
        {"size": {"shortest_edge": SIDE}},
    ),
}  # fmt: skip
CLASSIFIERS = ("vit", "swin", "convnext", "beit", "resnet")

_WORDS = {"context_length": 8, "vocab_size": 20, "width": 8, "heads": 2, "layers": 1}
_TOWER = {"image_size": SIDE, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8}
OPEN_CLIP = {
    "vit": _TOWER,
    "resnet": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 4, "patch_size": None},
    "coca": {**_TOWER, "attentional_pool": True, "attn_pooler_queries": 1, "attn_pooler_heads": 2,
             "output_tokens": True},
    "timm": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}  # fmt: skip


def save_transformers(name, folder, **more):
    """Save a model of a family, with its image processor, and return its folder."""
    import transformers
    from transformers.utils import logging

    model, config, settings, processor, options = TRANSFORMERS[name]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = getattr(transformers, model)(getattr(transformers, config)(**settings, **more)).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.ndim < 2:  # what begins as zeros or ones would show no mistake
                    parameter.add_(0.1 * torch.randn_like(parameter))
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
    net.save_pretrained(folder / name)
    getattr(transformers, processor)(**options).save_pretrained(folder / name)
    return folder / name


def save_open_clip(name, folder):
    """Save a model as it lies on the hub: configuration and weights; return its folder."""
    import open_clip

    architecture = {"embed_dim": 12, "vision_cfg": OPEN_CLIP[name], "text_cfg": _WORDS}
    prepared = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "shortest"}
    (folder / name).mkdir(parents=True)
    text = json.dumps({"model_cfg": architecture, "preprocess_cfg": prepared})
    (folder / name / "open_clip_config.json").write_text(text)
    (folder / name / "architecture.json").write_text(json.dumps(architecture))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        whole = open_clip.create_model(f"local-dir:{folder / name}")
    safetensors.torch.save_file(whole.state_dict(), folder / name / "open_clip_model.safetensors")
    return folder / name
