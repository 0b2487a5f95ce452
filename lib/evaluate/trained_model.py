"""A trained network with its normalization, test protocol and calibrated probabilities."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from lib.config import TrainSettings
from lib.evaluate.run_results import Calibration, fused_probabilities, read_calibration
from lib.models.transformers_video import is_hub_network
from lib.runs.device import autocast, resolve_test_device
from lib.runs.run_dir import RunDir
from lib.train.run_data import Normalize
from lib.train.run_model import build_run_model, eval_state_dict, run_normalize
from lib.train.scoring import EvalProtocol, fuse, test_protocol

NOT_CALIBRATED = "confidence is not calibrated: test the run first (notebooks/4_evaluate.ipynb)"


@dataclass(frozen=True)
class TrainedModel:
    """A trained network and everything that it needs to score clips."""

    settings: TrainSettings
    classes: tuple[str, ...]  # in the order of the logits
    network: nn.Module  # normalized clips (B, 3, T, H, W) -> logits (B, K), evaluation mode
    normalize: Normalize  # uint8 clips (B, T, 3, H, W) -> normalized (B, 3, T, H, W)
    calibration: Calibration | None = None  # None if the validation split is not tested

    @classmethod
    def load(
        cls,
        run: RunDir,
        *,
        classes: tuple[str, ...] | None = None,
        device: str | torch.device | None = None,
        is_calibrated: bool = True,
    ) -> Self:
        """Load the network of a run (`test_checkpoint`), with EMA weights where there are some.

        Neither the data set nor the first weights of the run are needed. `classes` are those of
        the data set to test on, None to skip their check. The default device is that of the
        settings, a GPU if there is one.
        """
        settings = run.settings()
        state = run.load(settings.test_checkpoint)
        trained = tuple(state["classes"])
        if classes is not None and trained != tuple(classes):
            theirs, ours = (f"{len(c)} ({', '.join(c[:3])}, …)" for c in (trained, classes))
            problem = f"trained on classes {theirs}, the data set has {ours}; test on the same data"
            raise ValueError(f"{run.checkpoint_path(settings.test_checkpoint)}: {problem}")
        device = torch.device(device or resolve_test_device(settings.device))
        unset = settings.model_copy(update={"pretrained": False, "weights": None})
        if is_hub_network(settings.model):
            unset = unset.model_copy(update={"model": f"hf/{run.folder}"})
        network = build_run_model(unset, len(trained))
        network.load_state_dict(eval_state_dict(state))
        calibration = read_calibration(run) if is_calibrated else None
        normalize = run_normalize(unset).to(device)
        return cls(settings, trained, network.to(device).eval(), normalize, calibration)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.normalize.mean.device

    @property
    def precision(self) -> str:
        """Precision of a forward pass: that of training on a GPU, `fp32` on a CPU."""
        return self.settings.precision if self.device.type == "cuda" else "fp32"

    @property
    def protocol(self) -> EvalProtocol:
        """Views of a video in the test, and their fusion."""
        return test_protocol(self.settings)

    @property
    def temperature(self) -> float:
        """Calibrated temperature; 1 without a calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    def view_logits(self, clips: Tensor) -> Tensor:
        """Score uint8 clips (B, T, 3, H, W): logits (B, K), float32, on the CPU."""
        return self.normalized_logits(self.normalize(clips.to(self.device)))

    @torch.inference_mode()
    def normalized_logits(self, clips: Tensor) -> Tensor:
        """Score normalized clips (B, 3, T, H, W): logits (B, K), float32, on the CPU."""
        with autocast(self.device, self.precision):
            return self.network(clips.to(self.device)).float().cpu()

    def probabilities(self, view_logits: Tensor) -> Tensor:
        """Fuse the logits of the views of videos, (N, V, K), to class probabilities (N, K)."""
        fusion = self.settings.test_average
        return fused_probabilities(fuse(view_logits, fusion), fusion, self.temperature)


def check_finished(run: RunDir) -> None:
    """Raise ValueError if a run is not finished."""
    if not run.is_finished():
        epoch, epochs = (run.saved_progress() or (0, 0))[1], run.settings().epochs
        problem = f"not finished, {epoch} of {epochs} epochs are trained"
        raise ValueError(f"{run.folder}: {problem}; repeat the command that trains it")
