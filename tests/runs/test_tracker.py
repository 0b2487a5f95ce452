"""Trackers: a run and its continuation are one run of the tracker, with each entry once."""

import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
from test_runs import RICH, PowerCut, cut_power

from lib.runs.run_dir import RunDir
from lib.runs.tracker import tracking
from lib.train.fit import fit


@pytest.fixture
def run(tiny_settings, tmp_path) -> RunDir:
    run = RunDir(tmp_path / "study" / "semi_seed0")
    run.folder.mkdir(parents=True)
    run.start(tiny_settings(run_dir=run.folder))
    return run


def add(run: RunDir, epoch: int) -> None:
    loss = None if epoch == 2 else 1 / epoch  # nothing was counted
    run.append_log({"epoch": epoch, "step": 6 * epoch, "loss/total": loss})


def train_in_two_parts(run: RunDir, name: str) -> None:
    add(run, 1)
    with tracking(run, name) as send:
        add(run, 2)
        send()
    run.truncate_log(1)  # the checkpoint was of epoch 1
    with tracking(run, name) as send:
        add(run, 2)
        send()
        add(run, 3)
        send()


class FakeTracker(ModuleType):
    """The functions of wandb, trackio and mlflow that are called."""

    def __init__(self, name: str):
        super().__init__(name)
        self.starts, self.logged, self.params, self.num_finished = [], [], {}, 0
        self.is_down = False
        self.run = SimpleNamespace(id="id7", log=self.log, finish=self.finish)

    def init(self, project: str, name: str, config: dict, **options) -> SimpleNamespace:
        self.starts.append((project, name, options.get("id"), options["resume"]))
        self.params |= config
        return self.run

    def log(self, values: dict, step: int) -> None:
        if self.is_down:
            raise ConnectionError("no route")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.num_finished += 1

    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def start_run(self, run_id: str | None, run_name: str) -> SimpleNamespace:
        self.starts.append((self.experiment, run_name, run_id, None))
        return SimpleNamespace(info=SimpleNamespace(run_id="id7"))

    def log_params(self, config: dict) -> None:
        assert not self.params  # MLflow refuses another value
        self.params |= config

    def log_metrics(self, values: dict, step: int, run_id: str) -> None:
        assert run_id == "id7"
        self.log(values, step)

    end_run = finish


@pytest.fixture
def fake(monkeypatch) -> Callable[[str], FakeTracker]:
    def install(name: str) -> FakeTracker:
        monkeypatch.setitem(sys.modules, name, FakeTracker(name))
        return sys.modules[name]

    return install


RESUMES = {  # identifier and `resume` of both starts
    "wandb": [(None, "allow"), ("id7", "allow")],
    "trackio": [(None, "never"), (None, "allow")],
    "mlflow": [(None, None), ("id7", None)],
}


@pytest.mark.parametrize("name", RESUMES)
def test_a_continued_run_sends_what_is_new_to_the_same_run(name, run, fake):
    tracker = fake(name)
    train_in_two_parts(run, name)
    assert tracker.starts == [("study", "semi_seed0", *resume) for resume in RESUMES[name]]
    assert tracker.logged == [
        (6, {"epoch": 1, "loss/total": 1.0}),
        (12, {"epoch": 2}),
        (18, {"epoch": 3, "loss/total": 1 / 3}),
    ]
    assert tracker.params["clip_len"] == 4 and tracker.num_finished == 2


def test_a_failing_tracker_is_named_and_ends_no_run(run, fake, monkeypatch):
    tracker = fake("wandb")
    with tracking(run, "wandb") as send:
        add(run, 1)
        tracker.is_down = True
        with pytest.warns(UserWarning, match="tracker: wandb: no route"):
            send()
        tracker.is_down = False
        send()
    assert [step for step, _ in tracker.logged] == [6]
    monkeypatch.setattr(tracker, "init", 1)
    with pytest.raises(ValueError, match="tracker: wandb does not start"), tracking(run, "wandb"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMES)
def test_the_real_package_keeps_the_log_offline(name, run, monkeypatch, tmp_path):
    package = pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if name == "mlflow":
        package.set_tracking_uri(tmp_path / "mlruns")
    train_in_two_parts(run, name)
    sent = json.loads((run.folder / f"{name}.json").read_text())
    assert sent["step"] == 18
    if name == "mlflow":
        history = package.MlflowClient().get_metric_history(sent["id"], "loss/total")
        assert [(each.step, each.value) for each in history] == [(6, 1.0), (18, 1 / 3)]
    if name == "wandb":
        starts = (run.folder / "wandb").glob("offline-run-*")
        assert [path.name.rsplit("-", 1)[1] for path in starts] == [sent["id"]] * 2


@pytest.mark.slow
def test_events_are_those_of_the_log_also_of_a_continued_run(tiny_settings, at_forward):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    settings = tiny_settings(**RICH, tracker="tensorboard")
    run = RunDir(settings.run_dir)

    at_forward(16, cut_power)
    with pytest.raises(PowerCut):
        fit(settings)
    fit(settings)
    written = {}
    for path in sorted((run.folder / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                written.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    entries = run.log_entries()
    expected = [(entry["step"], entry["loss/total"]) for entry in entries]
    assert [step for step, _ in written["loss/total"]] == [step for step, _ in expected]
    for (_, seen), (_, logged) in zip(written["loss/total"], expected, strict=True):
        assert seen == pytest.approx(logged)
    assert [step for step, _ in written["eval/top1_video"]] == [12, 18]


def test_a_missing_tracker_is_named_before_training(tiny_settings, monkeypatch):
    monkeypatch.setattr("lib.train.fit.find_spec", lambda name: None)
    settings = tiny_settings(tracker="wandb")
    with pytest.raises(ValueError, match=r"wandb is missing; pip install -e '\.\[wandb\]'"):
        fit(settings)
    assert not RunDir(settings.run_dir).folder.exists()
