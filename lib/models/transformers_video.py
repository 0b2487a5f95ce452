"""Networks of the Hugging Face Hub: video networks, and image encoders averaged over the frames.

`hf/<folder>` is a folder with a network's configuration and weights, `hf/<owner>/<name>` a
repository in the hub's local cache. Nothing is downloaded here. Weights are read from safetensors,
never from pickles, and only classes of the package `transformers` are built: code in a repository
is not run.
"""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.config import project_path
from lib.fileio import read_json
from lib.models.classifier import InputSpec

CONFIG = "config.json"
PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
REMEDY = "download the file again"


class _Kind(NamedTuple):
    """Networks of one `model_type`.

    `pool` is the network's own pooling (`pooler`), or the `mean` or `first` of the tokens that its
    `method` returns. `unused` are parts without an influence on the features.
    """

    pool: str
    method: str = "forward"
    is_image: bool = False
    any_clip_len: bool = False
    any_crop_size: bool = False
    unused: tuple[str, ...] = ()


_text = ("text_model", "text_projection", "logit_scale", "prompts_generator")
_prompts = ("prompts_visual_layernorm", "prompts_visual_projection")
_image = _Kind("pooler", is_image=True, any_clip_len=True)
_dino = _image._replace(any_crop_size=True, unused=("embeddings.mask_token",))
_KINDS = {
    "videomae": _Kind("mean"),
    "vjepa2": _Kind("mean", "get_vision_features", any_clip_len=True, unused=("predictor",)),
    "timesformer": _Kind("first"),
    "vivit": _Kind("first", unused=("pooler",)),
    "xclip": _Kind("pooler", "get_video_features", unused=_text + _prompts),
    "dinov2": _dino,
    "dinov2_with_registers": _dino,
    "dinov3_vit": _dino,
    "clip": _image,
    "clip_vision_model": _image,
    "siglip": _image,
    "siglip_vision_model": _image,
}


class HubNetwork(nn.Module):
    """A network of the hub: clips (B, 3, T, H, W), or images (B, 3, H, W), to features (B, D)."""

    def __init__(self, network: nn.Module, method: str, pool: str) -> None:
        super().__init__()
        self.network, self.method, self.pool = network, method, pool

    def forward(self, clips: Tensor) -> Tensor:
        """Return the features of normalized clips or images."""
        frames = clips.transpose(1, 2) if clips.ndim == 5 else clips
        output = getattr(self.network, self.method)(frames)
        if self.pool == "classifier":  # which is the identity
            return output.logits
        if self.pool == "pooler":
            return output.pooler_output
        tokens = getattr(output, "last_hidden_state", output)
        return tokens.mean(dim=1) if self.pool == "mean" else tokens[:, 0]


def is_hub_network(name: str) -> bool:
    """Return True for the name of a network of the hub."""
    return name.startswith("hf/")


def missing_network(name: str) -> str:
    """Return the part of a hub network that this machine lacks, and the command; empty if none."""
    if not is_hub_network(name):
        return ""
    if find_spec("transformers") is None:
        return f"model: {name} needs the package transformers; pip install -e '.[hub]'"
    try:
        network_folder(name)
    except ValueError as error:
        return str(error)
    return ""


def network_folder(name: str) -> Path:
    """Return the folder of a network's files; ValueError if there is none on this machine."""
    import huggingface_hub as hub

    repository = name.removeprefix("hf/")
    folder = project_path(repository)
    if not folder.is_dir():
        try:
            folder = Path(hub.snapshot_download(repository, local_files_only=True))
        except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError) as error:
            raise ValueError(
                f"model: {name} is neither the folder {folder} nor a repository in the hub's "
                f'cache; hf download {repository} --include "*.json" --include "*.safetensors"'
            ) from error
    if not (folder / CONFIG).is_file():
        raise ValueError(f"model: {folder} has no {CONFIG}; {REMEDY}, or name another folder")
    return folder


def description_files(name: str) -> list[Path]:
    """Return the files that describe a network of the hub; none for another network."""
    folder = network_folder(name) if is_hub_network(name) else None
    return [
        folder / file for file in (CONFIG, *PREPROCESSORS) if folder and (folder / file).exists()
    ]


def is_image_encoder(name: str) -> bool:
    """Return True if a network of the hub encodes images."""
    return _kind(network_folder(name)).is_image


def _kind(folder: Path) -> _Kind:
    model_type = read_json(folder / CONFIG, REMEDY).get("model_type")
    if model_type not in _KINDS:
        raise ValueError(
            f"model: {folder / CONFIG}: networks of the type {model_type!r} cannot be used, and "
            f"code in a repository is never run; choose one of {', '.join(_KINDS)}"
        )
    return _KINDS[model_type]


def _transformers() -> ModuleType:
    import transformers  # takes seconds

    transformers.logging.set_verbosity_error()  # missing tensors are an error below
    transformers.logging.disable_progress_bar()
    return transformers


def _configuration(folder: Path) -> Any:
    """Return the configuration of a network, of CLIP and SigLIP that of the vision side."""
    auto = _transformers().AutoConfig
    config = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return getattr(config, "vision_config", config) if _kind(folder).is_image else config


def hub_spec(name: str) -> InputSpec:
    """Return the clips that a network of the hub takes, from its own configuration."""
    folder = network_folder(name)
    kind, config = _kind(folder), _configuration(folder)
    config = getattr(config, "vision_config", config)  # of X-CLIP
    tubelet = getattr(config, "tubelet_size", 1)
    tubelet, *patch = [tubelet] if isinstance(tubelet, int) else tubelet
    side = _side(getattr(config, "crop_size", None) or config.image_size, folder)
    patch = _side(patch or config.patch_size, folder)
    mean, std = _normalization(folder)
    return InputSpec(
        mean,
        std,
        crop_size=side,
        min_clip_len=tubelet if kind.any_clip_len else config.num_frames,
        min_crop_size=patch if kind.any_crop_size else side,
        fixed_clip_len=not kind.any_clip_len,
        fixed_crop_size=not kind.any_crop_size,
        clip_len_multiple=tubelet,
        crop_size_multiple=patch if kind.any_crop_size else 1,
    )


def _normalization(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of values in 0..255, as the preprocessor of a network has them.

    It computes (scale · value − offset − mean) / deviation.
    """
    values = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "offset": False}
    for path in filter(Path.is_file, (folder / file for file in PREPROCESSORS)):
        values |= read_json(path, REMEDY)
    if not {"image_mean", "image_std"} <= values.keys():
        raise ValueError(
            f"model: {folder} has no {' or '.join(PREPROCESSORS)} with image_mean and image_std, "
            f"the normalization; {REMEDY}"
        )
    scale = values["rescale_factor"] if values["do_rescale"] else 1.0
    mean, std = values["image_mean"], values["image_std"]
    if not values["do_normalize"]:
        mean, std = [0.0] * 3, [1.0] * 3
    shifted = tuple((value + values["offset"]) / scale for value in mean)
    return shifted, tuple(value / scale for value in std)


def _side(size: int | list[int], folder: Path) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ValueError(f"model: {folder / CONFIG}: {size} is not square; choose another model")
    return sides.pop()


def build_hub_backbone(name: str, pretrained: bool) -> tuple[HubNetwork, int]:
    """Return a network of the hub without its classifier, and its number of features.

    A published classifier keeps its own pooling. ValueError if the files lack tensors, or do not
    fit.
    """
    folder = network_folder(name)
    kind, config = _kind(folder), _configuration(folder)
    classes = config.architectures or []
    is_classifier = any(text.endswith("ForVideoClassification") for text in classes)
    auto = "AutoModelForVideoClassification" if is_classifier else "AutoModel"
    network, missing = _build(getattr(_transformers(), auto), folder, config, pretrained)
    base, pool = network, kind.pool
    if is_classifier:
        base, pool = network.base_model, "classifier"
        feature_dim, network.classifier = network.classifier.in_features, nn.Identity()
    elif config.model_type == "xclip":
        feature_dim = config.vision_config.mit_hidden_size
    else:
        feature_dim = config.hidden_size
    for path in kind.unused:
        owner, _, part = path.rpartition(".")
        setattr(base.get_submodule(owner), part, None)
    if lost := sorted(missing & network.state_dict().keys()):
        raise ValueError(f"model: the files in {folder} lack {', '.join(lost)}; {REMEDY}")
    return HubNetwork(network, "forward" if is_classifier else kind.method, pool), feature_dim


def _build(auto: Any, folder: Path, config: Any, pretrained: bool) -> tuple[nn.Module, set[str]]:
    """Return a network, in training mode, and the names of its tensors that the files lack."""
    if not pretrained:
        return auto.from_config(config, trust_remote_code=False).float(), set()
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"model: {folder} has no *.safetensors, and other files of weights are pickles, which "
            "are not read; convert them where you trust them: "
            "AutoModel.from_pretrained(repository).save_pretrained(folder)"
        )
    options = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    options |= {"config": config, "dtype": torch.float32, "output_loading_info": True}
    try:
        network, info = auto.from_pretrained(folder, **options)
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"model: {folder} cannot be loaded ({reason}); {REMEDY}") from error
    return network.train(), set(info["missing_keys"])
