# ruff: noqa: E501 (the table has a config in each line)
"""Every experiment in `params/` against the configs of the reference, as facts in a table."""

from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from lib.batch import plan
from lib.batch.plan import cost_of, plan_text, read_plan
from lib.config import PROJECT_ROOT
from lib.models.networks import model_names
from lib.params import RECIPE, parameter_files, read_run_file, read_settings, read_yaml, split_seeds
from lib.prepare.catalog import CATALOG
from lib.prepare.requirements import data_requirements
from lib.report.verdict import CLAIMS, EXPECTED, of_study
from lib.runs.run_dir import group_of

PARAMS = PROJECT_ROOT / "params"
GPUS = 8
R2, R3 = "r2plus1d_34", "r3d_18"


@dataclass(frozen=True)
class Reference:
    """What a config of the reference says, with its own names of the lists.

    Attributes:
        run: Our file.
        config: Its file below `configs/`, without suffix.
        network: Network.
        labeled: Share of the labels, percent.
        epochs: `total_epochs`.
        val_every_epochs: `evaluation.interval`.
        per_gpu: `videos_per_gpu`, of each stream.
        lr: `optimizer.lr`.
        clip: `clip_len` and `frame_interval`.
    """

    run: str
    config: str
    network: str
    labeled: int
    epochs: int
    val_every_epochs: int
    per_gpu: int
    lr: float = 0.2
    clip: tuple[int, int] = (8, 8)

    @property
    def mode(self) -> str:
        """Folder of the config: the mode of training."""
        return self.config.split("/")[0]


SUP = "recognition/r2plus1d/"
AUG = "100percent_vidssl_supervised_aug"
TABLE = [
    Reference("ucf101/supervised_5percent", SUP + "r2plus1d_r34_8x8x1_3600e_ucf101_rgb_5percent_vidssl", R2, 5, 3600, 5, 16),
    Reference("ucf101/supervised_10percent", SUP + "r2plus1d_r34_8x8x1_1800e_ucf101_rgb_10percent_vidssl", R2, 10, 1800, 5, 16),
    Reference("ucf101/supervised_20percent", SUP + "r2plus1d_r34_8x8x1_900e_ucf101_rgb_20percent_vidssl", R2, 20, 900, 5, 16),
    Reference("ucf101/supervised_50percent", SUP + "r2plus1d_r34_8x8x1_360e_ucf101_rgb_50percent_vidssl", R2, 50, 360, 5, 16),
    Reference("ucf101/supervised_100percent", SUP + "r2plus1d_r34_8x8x1_180e_ucf101_rgb", R2, 100, 180, 5, 16),
    Reference("ucf101/supervised_r3d18_100percent", SUP + "r3d_r18_8x8x1_180e_ucf101_rgb", R3, 100, 180, 5, 16),
    Reference("ucf101/supervised_strong_100percent", "supervised_aug/r2plus1d_r34_8x8x1_180e_ucf101_rgb_all_" + AUG, R2, 100, 180, 10, 16),
    Reference("ucf101/semi_5percent", "semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_5percent_vidssl", R2, 5, 360, 5, 5),
    Reference("ucf101/semi_10percent", "semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_10percent_vidssl", R2, 10, 360, 5, 5),
    Reference("ucf101/semi_20percent", "semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_20percent_vidssl", R2, 20, 360, 5, 5),
    Reference("ucf101/semi_50percent", "semi/r2plus1d_r34_8x8x1_360e_ucf101_rgb_all_50percent_vidssl", R2, 50, 360, 5, 5),
    Reference("ucf101/semi_r3d18_5percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_5percent_vidssl", R3, 5, 360, 10, 5),
    Reference("ucf101/semi_r3d18_10percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_10percent_vidssl", R3, 10, 360, 5, 5),
    Reference("ucf101/semi_r3d18_20percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_20percent_vidssl", R3, 20, 360, 5, 5),
    Reference("ucf101/semi_r3d18_50percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_50percent_vidssl", R3, 50, 360, 5, 5),
    Reference("ucf101/semi_distilled_r3d18_5percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_5percent_vidssl", R3, 5, 360, 5, 5),
    Reference("ucf101/semi_distilled_r3d18_10percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_10percent_vidssl", R3, 10, 360, 5, 5),
    Reference("ucf101/semi_distilled_r3d18_50percent", "semi/r3d_r18_8x8x1_360e_ucf101_rgb_all_kd_50percent_vidssl", R3, 50, 360, 5, 5),
    Reference("hmdb51/supervised_40percent", SUP + "r2plus1d_r34_8x8x1_750e_hmdb51_rgb_40percent_vidssl", R2, 40, 750, 5, 16),
    Reference("hmdb51/supervised_50percent", SUP + "r2plus1d_r34_8x8x1_600e_hmdb51_rgb_50percent_vidssl", R2, 50, 600, 5, 16),
    Reference("hmdb51/supervised_60percent", SUP + "r2plus1d_r34_8x8x1_500e_hmdb51_rgb_60percent_vidssl", R2, 60, 500, 5, 16),
    Reference("hmdb51/supervised_100percent", SUP + "r2plus1d_r34_8x8x1_300e_hmdb51_rgb_100percent_vidssl", R2, 100, 300, 5, 16),
    Reference("hmdb51/supervised_r3d18_100percent", SUP + "r3d_r18_8x8x1_300e_hmdb51_rgb_100percent_vidssl", R3, 100, 300, 5, 16),
    Reference("hmdb51/supervised_strong_100percent", "supervised_aug/r2plus1d_r34_8x8x1_300e_hmdb51_rgb_all_" + AUG, R2, 100, 300, 10, 16),
    Reference("hmdb51/semi_40percent", "semi/r2plus1d_r34_8x8x1_600e_hmdb51_rgb_all_40percent_vidssl", R2, 40, 600, 10, 5),
    Reference("hmdb51/semi_50percent", "semi/r2plus1d_r34_8x8x1_600e_hmdb51_rgb_all_50percent_vidssl", R2, 50, 600, 10, 5),
    Reference("hmdb51/semi_60percent", "semi/r2plus1d_r34_8x8x1_600e_hmdb51_rgb_all_60percent_vidssl", R2, 60, 600, 10, 5),
    Reference("kinetics100/supervised_5percent", SUP + "r2plus1d_r34_8x8x1_3600e_kinetics100_5_percent_rgb", R2, 5, 3600, 5, 16),
    Reference("kinetics100/supervised_10percent", SUP + "r2plus1d_r34_8x8x1_1800e_kinetics100_10_percent_rgb", R2, 10, 1800, 5, 16),
    Reference("kinetics100/supervised_20percent", SUP + "r2plus1d_r34_8x8x1_900e_kinetics100_20_percent_rgb", R2, 20, 900, 5, 16),
    Reference("kinetics100/supervised_50percent", SUP + "r2plus1d_r34_8x8x1_360e_kinetics100_50_percent_rgb", R2, 50, 360, 5, 16),
    Reference("kinetics100/supervised_100percent", SUP + "r2plus1d_r34_8x8x1_180e_kinetics100_100_percent_rgb", R2, 100, 180, 5, 16),
    Reference("kinetics100/supervised_r3d18_100percent", SUP + "r3d_r18_8x8x1_180e_kinetics100_100_percent_rgb", R3, 100, 180, 5, 16),
    Reference("kinetics100/supervised_strong_100percent", "supervised_aug/r2plus1d_r34_8x8x1_180e_kinetics100_rgb_all_" + AUG, R2, 100, 180, 10, 16),
    Reference("kinetics100/semi_5percent", "semi/r2plus1d_r34_8x8x1_360e_kinetics100_rgb_all_5percent_vidssl", R2, 5, 360, 10, 5),
    Reference("kinetics100/semi_10percent", "semi/r2plus1d_r34_8x8x1_360e_kinetics100_rgb_all_10percent_vidssl", R2, 10, 360, 10, 5),
    Reference("kinetics100/semi_20percent", "semi/r2plus1d_r34_8x8x1_360e_kinetics100_rgb_all_20percent_vidssl", R2, 20, 360, 10, 5),
    Reference("kinetics100/semi_50percent", "semi/r2plus1d_r34_8x8x1_360e_kinetics100_rgb_all_50percent_vidssl", R2, 50, 360, 10, 5),
    Reference("kinetics400/supervised_100percent", SUP + "r2plus1d_r34_8x8x1_180e_kinetics400_rgb", R2, 100, 180, 5, 16),
    Reference("kinetics400/supervised_32x2_100percent", SUP + "r2plus1d_r34_32x2x1_180e_kinetics400_rgb", R2, 100, 180, 5, 6, 0.075, (32, 2)),
    Reference("cross/semi_ucf101_kinetics100", "semi_both/r2plus1d_r34_8x8x1_45e_ucf101-kinetics100_rgb_all_full_vidssl", R2, 100, 45, 5, 5),
    Reference("cross/semi_hmdb51_kinetics100", "semi_both/r2plus1d_r34_8x8x1_30e_hmdb51-kinetics100_rgb_all_full_vidssl", R2, 100, 30, 5, 5),
]  # fmt: skip
STUDIES = (
    "ucf101", "hmdb51", "kinetics100", "kinetics400", "mini_ssv2", "cross", "ablation",
    "pretrained_gpu", "video_backbones",
)  # fmt: skip
SMALL_STUDIES = (
    "synthetic", "ablation_small", "invariances", "demo", "folder", "pretrained", "real_scenes",
    "pretrained_scenes",
)  # fmt: skip

# What all configs of the reference have in common, and defaults of its code.
COMMON = {
    "short_side": 256, "crop_size": 224, "crop_area_min": 0.08, "momentum": 0.9,
    "weight_decay": 1e-4, "grad_clip": 40.0, "warmup_epochs": 0.0, "dropout": 0.5,
    "randaugment_num_ops": 2, "randaugment_magnitude": 10.0,
    "randaugment_ops": ["photometric", "geometric"],
    "temporal_ops": ["none", "half", "reverse", "drop"],
    "scene_augmentation": "actor_cutmix", "person_min_score": 0.4,
    "confidence_threshold": 0.95, "unlabeled_weight": 1.0, "unlabeled_rampup_epochs": 0.0,
    "val_split": "val", "test_splits": ["val"], "test_num_clips": 10, "test_num_crops": 3,
    "test_crop_size": 256, "test_average": "logits", "pretrained": False, "weights": None,
    "labeled_fraction": 1.0, "unlabeled_split": "train", "precision": "fp32",
}  # fmt: skip
MODES = {
    "recognition": {"objective": "supervised", "labeled_view": "weak", "labeled_scene_p": 0.0},
    "supervised_aug": {"objective": "supervised", "labeled_view": "strong", "labeled_scene_p": 0.5},
    "semi": {"objective": "fixmatch", "labeled_view": "weak", "labeled_scene_p": 0.0},
    "semi_both": {"objective": "fixmatch", "labeled_view": "strong", "labeled_scene_p": 0.5},
}
UNLABELED = {"unlabeled_scene_p": 0.5}


@pytest.fixture(scope="module")
def runs() -> dict:
    return {f"{run.run_dir.parent.name}/{run.name}": run for run in read_plan([PARAMS])}


def test_the_reference_has_42_configs():
    assert len({row.config for row in TABLE}) == len({row.run for row in TABLE}) == 42


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.run)
def test_a_file_repeats_its_config(row, runs):
    settings = runs[row.run].settings
    study, name = row.run.split("/")
    expected = COMMON | MODES[row.mode] | {
        "dataset": name.split("_")[1] if study == "cross" else study,
        "unlabeled_dataset": "kinetics100" if study == "cross" else None,
        "labeled_split": "train" if row.labeled == 100 else f"reference_{row.labeled}percent",
        "model": row.network,
        "epochs": row.epochs,
        "val_every_epochs": row.val_every_epochs,
        "lr": row.lr,
        "labeled_batch": GPUS * row.per_gpu,
        "micro_batch": row.per_gpu,
        "clip_len": row.clip[0],
        "frame_interval": row.clip[1],
        "distillation_weight": float("_kd_" in row.config),
    }  # fmt: skip
    if row.mode.startswith("semi"):
        expected |= UNLABELED | {"unlabeled_batch": GPUS * row.per_gpu}
    assert {name: getattr(settings, name) for name in expected} == expected


def test_every_list_is_published(runs):
    for name, run in runs.items():
        if name.split("/")[0] not in STUDIES:
            continue
        for need in data_requirements([run.settings]):
            known = {entry.name for entry in CATALOG[need.dataset].splits}
            assert need.splits <= known, name


def test_the_studies_are_known(runs):
    studies = {name.split("/")[0] for name in runs}
    assert studies == {*STUDIES, *SMALL_STUDIES}
    names = {run.settings.model for run in runs.values()}
    assert {name for name in names if not name.startswith("hf/")} <= set(model_names())


@pytest.mark.parametrize("study", STUDIES)
def test_papers_recipes_leave_nothing_to_the_small_defaults(study, runs):
    of_the_machine = {"run_dir", "prepared_dir", "tracker"}
    not_of_the_paper = {
        "threshold_momentum",
        "soft_targets",
        "soft_target_weight",
        "ema_decay",
        "ema_teacher",
        "layer_decay",
        "drop_path",
        "gradient_checkpointing",
        "temporal_std_pooling",
        "freeze_fraction",
        "freeze_batch_norm",
        "head_init",
        "init_noise",
        "probe_l2",
        "self_training_rounds",
    }  # off in the notebook as well
    for name, run in runs.items():
        if name.startswith(f"{study}/"):
            left = set(type(run.settings).model_fields) - set(run.parameters) - of_the_machine
            assert left <= not_of_the_paper


@pytest.mark.parametrize("study", STUDIES)
def test_values_that_the_papers_studies_share_are_written_once(study):
    shared, recipe = (
        read_yaml(path) for path in (PARAMS / "paper" / RECIPE, PARAMS / "paper" / study / RECIPE)
    )
    assert [name for name in recipe if name in shared and recipe[name] == shared[name]] == []


def test_recipes_apply_by_their_place_and_give_the_run_dir(tmp_path):
    recipe, inner = tmp_path / "all" / RECIPE, tmp_path / "all" / "study" / RECIPE
    inner.parent.mkdir(parents=True)
    recipe.write_text("seed: 1\nlr: 0.5\nepochs: 1\n")
    inner.write_text("epochs: 2\nmomentum: 0.5\n")
    run = inner.with_name("a.yaml")
    run.write_text("momentum: 0.8\n")
    assert parameter_files(run) == [recipe, inner, run]
    values = {"seed": 1, "lr": 0.5, "epochs": 2, "momentum": 0.8}
    assert read_run_file(run) == values | {"run_dir": "outputs/all/study/a"}
    run.write_text("run_dir: elsewhere\nseeds: [3, 4]\n")
    found = [(v["run_dir"], v["seed"], v["labeled_seed"]) for v in split_seeds(read_run_file(run))]
    assert found == [("elsewhere_seed3", 3, 3), ("elsewhere_seed4", 4, 4)]
    assert read_settings([run]).run_dir == "elsewhere_seed3"
    run.write_text("seeds: 3\n")
    with pytest.raises(ValueError, match=r"a.yaml: seeds: must be a list"):
        read_plan([run])


@pytest.mark.parametrize("study", ["ablation", "ablation_small"])
def test_the_ablation_is_whole(study, runs):
    families = ("photometric", "geometric", "temporal", "scene")

    def used(settings) -> frozenset:
        names = set(settings.randaugment_ops) if settings.randaugment_num_ops else set()
        names |= {"temporal"} if settings.temporal_ops != ["none"] else set()
        return frozenset(names | ({"scene"} if settings.unlabeled_scene_p else set()))

    found = {}
    for name, run in runs.items():
        if name.startswith(f"{study}/") and run.settings.is_semi_supervised:
            found[name.split("/")[1]] = (run.settings.scene_augmentation, used(run.settings))
    for i, one in enumerate(families):
        assert found[one] == ("actor_cutmix", {one})
        for two in families[i + 1 :]:
            assert found[f"{one}_{two}"] == ("actor_cutmix", {one, two})
    assert found["none"][1] == set() and found["all"][1] == set(families)
    for name, scene in (("cutout", "scene_cutout"), ("cutmix", "cutmix"), ("mixup", "mixup")):
        assert found[f"scene_by_{name}"] == (scene, {"scene"})
    uda = runs[f"{study}/all_uda"].settings
    assert (uda.objective, uda.confidence_threshold, uda.temperature) == ("uda", 0.8, 0.4)


def test_what_is_claimed_and_expected_is_of_groups_and_lists_that_are_run(runs):
    groups = {}
    for name, run in runs.items():
        study, run_name = name.split("/")
        groups.setdefault(study, {})[group_of(run_name)] = set(run.settings.test_splits)
    claims = of_study(CLAIMS, "demo")
    expected = of_study(EXPECTED, "demo")
    assert len(claims) == 3 and len(expected) == 6
    named = [(row.better, row.split) for row in claims.itertuples()]
    named += [(row.worse, row.split) for row in claims.itertuples()]
    for group, test_list in named + list(zip(expected["group"], expected["split"], strict=True)):
        assert test_list in groups["demo"][group]
    assert ((0 <= expected["low"]) & (expected["low"] < expected["high"])).all()
    assert (expected["high"] <= 100).all()


def test_the_ablation_is_about_the_semi_supervised_run(runs):
    one, other = (runs[n].settings.model_dump() for n in ("ablation/all", "ucf101/semi_10percent"))
    assert {name for name in one if one[name] != other[name]} == {"run_dir"}


def test_the_readme_lists_every_file(runs):
    text = (PARAMS / "README.md").read_text()
    for row in TABLE:
        assert f"| `{row.run.split('/')[1]}` | `{row.config}` |" in text
    for name in runs:
        assert f"{name.split('/')[0]}`" in text
        assert name.split("/")[0] in SMALL_STUDIES or f"| `{name.split('/')[1]}` |" in text


def test_the_plan_of_everything_prints(runs):
    text = plan_text(list(runs.values()))
    assert f"{len(runs)} runs" in text
    assert "python -m lib.prepare --dataset kinetics100" in text
    command = "hf download facebook/vjepa2-vitl-fpc64-256 --include"
    assert command in text or find_spec("transformers") is None


def test_the_plan_has_hours_memory_and_the_expected_number(runs, monkeypatch):
    table = plan.read_table("speed.csv").head(2).assign(clips_per_s=[20.0, 40.0], memory_gb=8.0)
    tables = {"speed.csv": table.assign(clips=[16, 4])}
    read = plan.read_table
    monkeypatch.setattr(plan, "read_table", lambda name: tables.get(name, read(name)))
    text = plan_text([runs["ucf101/semi_10percent"], runs["demo/semi_seed0"]])
    hours = 360 * (9537 // 40) * (40 + 2 * 40) / 20 / 3600
    assert f"{hours / 8:.1f} h on 8 RTX 2080 Ti, {hours:.1f} h on one; 7.5 GB for a pass" in text
    assert "top-1 40.2 in the paper (LEViL (2026), Table I)" in text
    assert "top-1 89.4 to 100.0 on val (params/expected.csv)" in text
    assert text.endswith(f"; {hours / 8:.0f} h on 8 GPUs, {hours:.0f} h on one")
    long_clips = runs["kinetics400/supervised_32x2_100percent"].settings
    assert cost_of(long_clips) == (0.0, "12.0 GB for a pass of 6 clips")  # 4 times 8 frames
    assert cost_of(runs["demo/semi_seed0"].settings) == (0.0, "")  # not for a GPU
    assert cost_of(runs["pretrained_gpu/ucf101_semi_5percent"].settings) == (0.0, "")
    tables["speed.csv"] = table.assign(gpu=["old", "new"])
    assert cost_of(runs["ucf101/semi_10percent"].settings) == (0.0, "")  # not measured on the last
