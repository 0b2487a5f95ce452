"""Torchvision's video networks make a step in every mode."""

import pytest
import torch
import torchvision
from torchvision.models.video.mvit import MSBlockConfig, MViT

from lib.models.networks import build_model, input_spec
from lib.runs.distributed import DistContext
from lib.train import run_model
from lib.train.trainer import Trainer

MODES = [
    {"objective": "supervised"},
    {"objective": "supervised", "labeled_view": "strong", "labeled_scene_p": 1.0},
    {"objective": "fixmatch"},
    {"objective": "uda", "labeled_view": "strong", "joint_forward": False},
]


def small_mvit(name: str, **_) -> MViT:
    """Two of MViT's blocks, which embed the positions of 4 frames of 32 pixels."""
    assert name == "mvit_v2_s"
    sizes = {"kernel_q": [3, 3, 3], "kernel_kv": [3, 3, 3]}
    blocks = [
        MSBlockConfig(1, 8, 16, stride_q=[1, 1, 1], stride_kv=[1, 4, 4], **sizes),
        MSBlockConfig(2, 16, 16, stride_q=[1, 2, 2], stride_kv=[1, 2, 2], **sizes),
    ]
    options = {"residual_pool": True, "residual_with_cls_embed": False, "rel_pos_embed": True}
    options |= {"proj_after_attn": True, "attention_dropout": 0.0, "stochastic_depth_prob": 0.2}
    return MViT((32, 32), 4, blocks, dropout=0.5, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvit_v2_s", "swin3d_t", "r2plus1d_18"])
def test_a_step_in_every_mode(tiny_settings, monkeypatch, name):
    if name == "mvit_v2_s":  # of full size it takes 16 frames of 224 pixels
        monkeypatch.setattr(torchvision.models, "get_model", small_mvit)
    model = build_model(name, 4)
    monkeypatch.setattr(run_model, "build_run_model", lambda *_: model)
    sizes = {"short_side": 32, "crop_size": 32, "labeled_batch": 2, "unlabeled_batch": 2}
    for mode in MODES:
        settings = tiny_settings(model=name, **sizes, **mode)
        trainer = Trainer(settings, DistContext(0, 1, torch.device("cpu")))
        assert trainer.normalize.mean.flatten().tolist() == pytest.approx(input_spec(name).mean)
        before = [parameter.clone() for parameter in model.parameters()]
        trainer.train_step(trainer.load_pairs(0, 1))
        changed = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        assert sum(changed) > 0.9 * len(changed), mode
        assert all(parameter.isfinite().all() for parameter in model.parameters())
