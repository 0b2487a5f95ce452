"""Class probabilities from class names alone, by a network of images and text (`soft_targets`).

A network of the Hugging Face Hub, CLIP, SigLIP or X-CLIP, compares frames of a video with a
sentence for each class. `lib.data.frame_tables.read_soft_targets` reads the table.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from lib.augment.views import EvalTransform
from lib.data.dataset import VideoDataset
from lib.data.frame_tables import SOFT_TARGETS
from lib.fileio import read_json, write_text
from lib.models.transformers_video import (
    CONFIG,
    REMEDY,
    hub_spec,
    is_hub_network,
    missing_network,
    network_folder,
)
from lib.prepare.find_videos import read_table
from lib.train.run_data import Normalize
from lib.train.scoring import EvalProtocol, VideoViews, metrics

NUM_FRAMES = 8  # of a video, evenly spaced; X-CLIP has its own number
PROMPT = "a video of a person: {}"
PROMPT_COLUMNS = ("class", "prompt")


def soft_targets_path(dataset_folder: Path, name: str) -> Path:
    """Return the table of a network called `name` in a prepared folder."""
    return dataset_folder / f"{SOFT_TARGETS}{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.csv"


def read_prompts(classes: tuple[str, ...], path: Path | None) -> list[list[str]]:
    """Return the sentences of each class: those of a CSV table, or one from its name.

    `BandMarching` and `band_marching` become "band marching". ValueError if a class of the table is
    unknown, or one has no sentence.
    """
    if path is None:
        words = [re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", name).lower() for name in classes]
        return [[PROMPT.format(text)] for text in words]
    table = read_table(path, PROMPT_COLUMNS)
    if different := sorted(set(table["class"]) ^ set(classes)):
        raise ValueError(
            f"prompts_file: {path}: {different[0]!r} is no class of the data set, or has no prompt"
        )
    return [table["prompt"][table["class"] == name].tolist() for name in classes]


@torch.inference_mode()
def write_soft_targets(dataset: VideoDataset, name: str, prompts_file: Path | None = None) -> Path:
    """Write the class probabilities of all videos of a data set; return the table.

    Logits are averaged over the frames and over the sentences of a class. Prints the accuracy on
    the videos with a label. ValueError if the network or the prompts cannot be used.
    """
    sentences = read_prompts(dataset.classes, prompts_file)
    network, tokens = _load(name, [text for texts in sentences for text in texts])
    spec, is_video = hub_spec(name), hasattr(network, "get_video_features")
    normalize = Normalize(spec.mean, spec.std)
    crops = EvalTransform(spec.crop_size, spec.crop_size, num_crops=1)
    count = spec.min_clip_len if is_video else NUM_FRAMES
    views = VideoViews(dataset, np.arange(len(dataset.index)), EvalProtocol(count, 1, 1, crops))
    owners = np.repeat(np.arange(len(sentences)), [len(texts) for texts in sentences])
    means = torch.from_numpy(np.eye(len(sentences))[owners] / np.bincount(owners)).float()
    embeddings = None if is_video else _unit(network.get_text_features(**tokens))
    logits = []
    for position in tqdm(range(len(views)), unit="video", disable=None):
        frames = normalize(crops.views(*views[position]))[:, :, 0]  # (T, 3, H, W)
        if is_video:
            scores = network(**tokens, pixel_values=frames[None]).logits_per_video
        else:
            images = _unit(network.get_image_features(pixel_values=frames))
            scores = network.logit_scale.exp() * images @ embeddings.T
        logits.append(scores.mean(dim=0) @ means)
    shares = torch.stack(logits).double().softmax(dim=1).numpy()
    table = pd.DataFrame(shares, columns=list(dataset.classes))
    table.insert(0, "name", dataset.index["name"])
    labels = dataset.index["label"].to_numpy()
    if (labels >= 0).any():
        top1 = metrics(shares[labels >= 0], labels[labels >= 0])["top1"]
        print(f"no labels, {name}: top-1 {top1:.1f} % of {(labels >= 0).sum()} labeled videos")
    path = soft_targets_path(dataset.folder, name)
    return write_text(path, table.to_csv(index=False))


def check_zero_shot(name: str) -> None:
    """Raise ValueError if a network is not on this machine, or has no text side."""
    if problem := missing_network(name):
        raise ValueError(problem.replace("model:", "soft_targets:", 1))
    config = read_json(network_folder(name) / CONFIG, REMEDY) if is_hub_network(name) else {}
    if "text_config" not in config:
        raise ValueError(
            f"soft_targets: {name} has no text side; choose hf/<a CLIP, SigLIP or X-CLIP>"
        )


def _load(name: str, texts: list[str]) -> tuple[Any, dict[str, Tensor]]:
    """Return a network and the tokens of the texts, from files on this machine."""
    from transformers import AutoModel, AutoTokenizer  # takes seconds

    folder, local = network_folder(name), {"local_files_only": True, "trust_remote_code": False}
    network = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **local)
    # SigLIP was trained with texts of its full length.
    padding = "max_length" if network.config.model_type == "siglip" else True
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    options = {"padding": padding, "truncation": True, "return_tensors": "pt"}
    length = network.config.text_config.max_position_embeddings
    return network.eval(), dict(tokenizer(texts, max_length=length, **options))


def _unit(output: Any) -> Tensor:
    """Return pooled embeddings (N, D) of length 1."""
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
