import re

import pytest
import yaml

from lib.config import (
    PROJECT_ROOT,
    EvaluateSettings,
    ExploreSettings,
    PrepareSettings,
    ReportSettings,
    TrainSettings,
    project_path,
)
from lib.params import make_settings, parse_values, read_parameters, read_yaml

ALL_SETTINGS = [PrepareSettings, ExploreSettings, TrainSettings, EvaluateSettings, ReportSettings]


def refused(**values) -> str:
    with pytest.raises(ValueError) as error:
        make_settings(TrainSettings, values, "params/x.yaml")
    return str(error.value)


# --- Values ---------------------------------------------------------------------------------------


def test_fields_that_are_not_given_keep_their_default():
    settings = make_settings(TrainSettings, {"lr": 0.1}, "here")
    assert settings.lr == 0.1 and settings.epochs == TrainSettings().epochs


def test_an_unknown_name_is_refused_with_the_near_miss_and_the_source():
    message = refused(labeled_bach=8)
    assert message.startswith("params/x.yaml: settings that cannot be used")
    assert "labeled_bach: no such parameter; did you mean 'labeled_batch'?" in message
    assert "did you mean" not in refused(zzzzzz=1)


def test_every_wrong_field_is_named_at_once():
    message = refused(lr=-1.0, epochs=0, modell="x")
    lines = message.splitlines()[1:]
    assert sorted(line.split(":")[0].strip() for line in lines) == ["epochs", "lr", "modell"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "10"),  # no text for a number
        ("epochs", 10.0),  # no fraction for a count
        ("epochs", True),
        ("lr", "0.1"),
        ("lr", True),
        ("pretrained", 1),
        ("pretrained", "false"),
        ("model", 18),
        ("test_splits", "val"),  # a list of one name is a list
    ],
)
def test_types_are_strict(name, value):
    assert f"{name}: " in refused(**{name: value}) and repr(value) in refused(**{name: value})


def test_a_whole_number_may_stand_for_a_fraction():
    assert make_settings(TrainSettings, {"lr": 1, "randaugment_magnitude": 9}, "here").lr == 1


def test_yaml_that_reads_1e_4_as_text_gets_a_hint(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("weight_decay: 1e-4\n")
    with pytest.raises(ValueError, match="weight_decay: .*'1e-4'.*write 1.0e-4"):
        make_settings(TrainSettings, read_yaml(path), str(path))
    assert "1.0e-4" not in refused(model=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_len", 0),
        ("frame_interval", 0),
        ("crop_area_min", 0.0),
        ("crop_area_min", 1.1),
        ("randaugment_num_ops", -1),
        ("randaugment_magnitude", 31.0),
        ("temporal_ops", []),
        ("temporal_ops", ["none", "backwards"]),
        ("scene_augmentation", "cutout"),
        ("person_min_score", 1.5),
        ("labeled_fraction", 0.0),
        ("labeled_fraction", 1.01),
        ("labeled_scene_p", -0.1),
        ("unlabeled_scene_p", 1.1),
        ("confidence_threshold", 0.0),
        ("temperature", 0.0),
        ("unlabeled_weight", -1.0),
        ("unlabeled_rampup_epochs", -1.0),
        ("objective", "mixmatch"),
        ("labeled_view", "both"),
        ("dropout", 1.0),
        ("labeled_batch", 0),
        ("micro_batch", -1),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("grad_clip", 0.0),
        ("val_every_epochs", 0),
        ("test_splits", []),
        ("test_num_crops", 2),
        ("test_average", "votes"),
        ("device", "tpu"),
        ("precision", "fp8"),
        ("num_processes", -1),
        ("seed", -1),
    ],
)
def test_impossible_values_are_refused_by_name(name, value):
    assert f"\n  {name}: " in refused(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"temporal_ops": ["none", "revers"]},
            "temporal_ops: no such name; did you mean 'reverse'",
        ),
        ({"randaugment_ops": ["rotat"]}, "randaugment_ops: no such name; did you mean 'rotate'"),
        ({"scene_augmentation": "mix"}, "scene_augmentation: .*'mixup'.*got 'mix'"),
        ({"objective": "fixmach"}, "objective: .*'fixmatch'.*supervised, .*fixmatch, uda"),
    ],
)
def test_a_name_that_no_table_has_is_refused_with_the_near_miss(values, message):
    assert re.search(message, refused(**values))


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().lr = 1.0


# --- Fields that must fit together ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"crop_size": 37}, ["crop_size 37", "short_side 36"]),
        ({"test_crop_size": 40}, ["test_crop_size 40", "short_side 36"]),
        (
            {"objective": "supervised", "distillation_weight": 1.0},
            ["distillation_weight", "objective"],
        ),
        (
            {"joint_forward": False, "distillation_weight": 1.0},
            ["distillation_weight", "joint_forward"],
        ),
        ({"weights": "x.pth", "pretrained": True}, ["weights", "pretrained"]),
        ({"clip_len": 7}, ["clip_len", "temporal_ops"]),  # half of an odd clip
    ],
)
def test_fields_that_contradict_each_other_are_named(values, named):
    message = refused(**values)
    assert all(name in message for name in named)


def test_an_odd_clip_is_fine_where_it_is_never_halved():
    assert TrainSettings(clip_len=7, temporal_ops=["none", "reverse"]).clip_len == 7


# --- YAML files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL_SETTINGS)
def test_settings_survive_yaml(model, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(model().as_yaml())
    assert make_settings(model, read_yaml(path), str(path)) == model()
    assert list(yaml.safe_load(path.read_text())) == list(model.model_fields)


def test_comments_and_empty_files_are_fine(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# nothing but a comment\n")
    assert read_yaml(path) == {}
    path.write_text("lr: 0.1  # peak\ntest_splits: [val, val_swapped]\n")
    assert read_yaml(path) == {"lr": 0.1, "test_splits": ["val", "val_swapped"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 0.1\nepochs: 3\nlr: 0.2\n", "line 3: 'lr' is set a second time"),
        ("optimizer:\n  lr: 0.1\n", "must be flat"),
        ("- lr\n- epochs\n", "must be flat"),
        ("lr: [0.1\n", "not valid YAML"),
        ("lr: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_flat_yaml_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.yaml: cannot be read"):
        read_yaml(tmp_path / "gone.yaml")


# --- A notebook's parameters ----------------------------------------------------------------------


def namespace(*cells: str, **changes) -> dict:
    """The `globals()` of a notebook that declares every field and has run some cells."""
    declared = ReportSettings().model_dump() | {"pd": object(), "_": None}
    return declared | {"In": ["", "import pandas as pd", "study_dir = 'outputs'", *cells]} | changes


def test_declared_parameters_become_settings():
    settings = read_parameters(ReportSettings, namespace(title="Mine"))
    assert settings == ReportSettings(title="Mine")


def test_injected_parameters_override_the_declared_ones():
    cell = "# Parameters\ntitle = 'Injected'\n"
    scope = namespace(cell)
    exec(cell, scope)  # as the kernel does
    assert read_parameters(ReportSettings, scope).title == "Injected"


def test_an_injected_name_that_the_notebook_does_not_declare_is_refused():
    cell = "# Parameters\ntitel = 'Injected'\nstudy_dir = 'x'\n"
    with pytest.raises(ValueError, match="titel: no such parameter; did you mean 'title'"):
        read_parameters(ReportSettings, namespace(cell, titel="Injected"))


def test_names_of_other_cells_are_no_parameters():
    assert read_parameters(ReportSettings, namespace("titel = 1", titel=1)) == ReportSettings()


def test_a_parameter_that_the_cell_forgot_is_named():
    scope = namespace()
    del scope["title"]
    with pytest.raises(ValueError, match="title: not set; the parameters cell declares it"):
        read_parameters(ReportSettings, scope)


def test_a_wrong_value_in_a_notebook_is_named():
    with pytest.raises(ValueError, match="this notebook: .*\n  title: .*got 5"):
        read_parameters(ReportSettings, namespace(title=5))


def test_parameters_are_read_outside_of_a_notebook():
    assert read_parameters(ReportSettings, ReportSettings().model_dump()) == ReportSettings()


# --- Paths ----------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert project_path("outputs/x") == PROJECT_ROOT / "outputs/x"
    assert project_path(tmp_path / "x") == tmp_path / "x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert project_path("~/x") == tmp_path / "x"


def test_the_root_is_the_folder_of_the_readme_or_of_the_notebooks():
    assert (PROJECT_ROOT / "pyproject.toml").is_file() and (PROJECT_ROOT / "lib").is_dir()


# --- Documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL_SETTINGS)
def test_every_field_is_described(model):
    undescribed = [name for name, field in model.model_fields.items() if not field.description]
    assert undescribed == []


# --- Command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("seed", "0,1,2", [0, 1, 2]),
        ("lr", "0.1", [0.1]),
        ("frame_interval", "auto", ["auto"]),
        ("pretrained", "true,false", [True, False]),
        ("test_splits", "[val, train]", [["val", "train"]]),
        ("test_num_crops", "1", [1]),
        ("objective", "fixmatch, uda", ["fixmatch", "uda"]),
        ("precision", "fp32,bf16", ["fp32", "bf16"]),
        ("model", "timm/resnet18", ["timm/resnet18"]),
        ("weights", "null", [None]),
        ("run_dir", "null", ["null"]),  # may not be None
        ("unlabeled_dataset", "null,ucf101", [None, "ucf101"]),
    ],
)
def test_values_are_parsed_by_the_type_of_the_field(name, text, values):
    assert parse_values(TrainSettings, name, text) == values
    assert [type(value) for value in parse_values(TrainSettings, name, text)] == [
        type(value) for value in values
    ]


@pytest.mark.parametrize("path", ["a, b", "c #1", "d: e", "[f]", "2024", "no", "~", "{g}", "1e5"])
def test_a_path_on_the_command_line_is_text(path):
    for model in (PrepareSettings, TrainSettings):
        assert parse_values(model, "videos_dir", path) == [path]
    assert parse_values(EvaluateSettings, "run_dir", path) == [path]


def test_command_line_values_that_cannot_be_parsed_are_named():
    with pytest.raises(ValueError, match="epohcs: no such parameter; did you mean 'epochs'"):
        parse_values(TrainSettings, "epohcs", "1")
    with pytest.raises(ValueError, match=r"seed: '\[1' is not valid YAML"):
        parse_values(TrainSettings, "seed", "[1")
