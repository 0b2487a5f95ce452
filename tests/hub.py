"""Small networks of the Hugging Face Hub's classes, with random weights on disk."""

import json
from pathlib import Path

import torch

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}
CLIP = {"num_frames": 4, "tubelet_size": 2}
TEXT = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 1}
TEXT |= {"num_attention_heads": 2, "vocab_size": 8, "bos_token_id": 1, "eos_token_id": 2}
MIT = {"mit_hidden_size": 24, "mit_intermediate_size": 16, "mit_num_attention_heads": 2}
PREDICTOR = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
# Name -> class of its configuration, values, class of the network ("" for the base class).
NETWORKS = {
    "videomae": ("VideoMAEConfig", SIZES | CLIP | {"use_mean_pooling": False}, ""),
    "videomae_classifier": ("VideoMAEConfig", SIZES | CLIP, "VideoMAEForVideoClassification"),
    "videomae_pretrained": (
        "VideoMAEConfig",
        SIZES | CLIP | {"use_mean_pooling": False, "decoder_hidden_size": 24}
        | {"decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1},
        "VideoMAEForPreTraining",
    ),
    "vjepa2": (
        "VJEPA2Config",
        SIZES | PREDICTOR | {"crop_size": 16, "frames_per_clip": 4},
        "",
    ),
    "vjepa2_classifier": (
        "VJEPA2Config",
        SIZES | PREDICTOR | {"crop_size": 16, "frames_per_clip": 4},
        "VJEPA2ForVideoClassification",
    ),
    "timesformer": ("TimesformerConfig", SIZES | {"num_frames": 4}, ""),
    "vivit": ("VivitConfig", SIZES | {"num_frames": 4, "tubelet_size": [2, 8, 8]}, ""),
    "vivit_classifier": (
        "VivitConfig",
        SIZES | {"num_frames": 4, "tubelet_size": [2, 8, 8]},
        "VivitForVideoClassification",
    ),
    "xclip": (
        "XCLIPConfig",
        {
            "text_config": TEXT,
            "vision_config": SIZES | MIT | {"num_frames": 4},
            "projection_dim": 24,
            "prompt_num_attention_heads": 2,
        },
        "",
    ),
    "dinov2": ("Dinov2Config", SIZES, ""),
    "dinov3": ("DINOv3ViTConfig", SIZES, ""),
    "clip": ("CLIPConfig", {"text_config": TEXT, "vision_config": SIZES}, ""),
    "siglip": ("SiglipConfig", {"text_config": TEXT, "vision_config": SIZES}, ""),
}  # fmt: skip
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def write_network(folder: Path, name: str, **changes) -> str:
    """Write a network as its authors publish it; return the setting `model`."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config_class, values, network_class = NETWORKS[name]
    config = getattr(transformers, config_class)(**values | changes)
    torch.manual_seed(0)
    if network_class:
        network = getattr(transformers, network_class)(config)
    else:
        network = transformers.AutoModel.from_config(config)
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return f"hf/{folder}"
