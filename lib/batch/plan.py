"""Plan of a batch: its runs, their state, and the data that they need."""

import contextlib
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lib.augment.class_names import view_warnings
from lib.config import PROJECT_ROOT, PrepareSettings, TrainSettings, project_path
from lib.data.dataset import is_prepared, read_description
from lib.models.networks import input_spec
from lib.models.transformers_video import missing_network
from lib.params import (
    AUTO,
    RECIPE,
    SEEDS,
    check_set_values,
    is_run_file,
    make_settings,
    read_run_file,
    read_yaml,
    split_seeds,
)
from lib.prepare.auto_settings import resolve_auto
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.find_videos import find_videos, split_counts
from lib.prepare.requirements import data_requirements, missing_networks
from lib.registry import did_you_mean
from lib.runs.run_dir import (
    ROOTS,
    RunDir,
    differences,
    format_runs,
    group_of,
    is_gone,
    read_result,
    read_status,
)
from lib.train.schedule import count_steps, num_micro_batches

COMPLETE, TO_EVALUATE, TO_CONTINUE = "complete", "to evaluate", "to continue"
TO_DO, REFUSED = "to do", "refused"

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a batch."""

    source: Path  # the run file
    parameters: dict[str, Any]  # of recipes, run file and grid, as given to papermill
    settings: TrainSettings
    notes: tuple[str, ...] = ()  # values chosen from the footage and why, and warnings

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return project_path(self.settings.run_dir)

    @property
    def name(self) -> str:
        """Name of that folder."""
        return self.run_dir.name


# --- Reading --------------------------------------------------------------------------------------


def read_plan(paths: Iterable[str | Path], grid: Grid | None = None) -> list[PlannedRun]:
    """Read the runs of run files, folders, and patterns of them, relative to the project's root.

    The values of `grid` override those of every run; several values of a parameter make a run for
    each combination, with the values in the name of its `run_dir`. ValueError, with every file and
    field, if there is no run, parameters are wrong, or two runs share a folder.
    """
    files = list(dict.fromkeys(file for path in paths for file in find_run_files(path)))
    read = functools.cache(read_yaml)  # a recipe is parsed once
    classes_of = functools.cache(class_names)
    runs, wrong = [], {}
    for path in files:
        try:
            for parameters in expand(read_run_file(path, read), grid or {}):
                values, notes = fill_in(parameters)
                if values is None:
                    print(f"{Path(parameters['run_dir']).name}: {notes[0]}")
                    continue
                settings = make_settings(TrainSettings, values, str(path))
                check_network(settings.model, settings.pretrained)
                classes = classes_of(*settings.labeled_source)
                notes += view_warnings(classes, settings.flip, settings.temporal_ops)
                runs.append(PlannedRun(path, values, settings, tuple(notes)))
        except ValueError as error:
            wrong.setdefault(str(error).removeprefix(str(path)), []).append(path)
    if wrong:
        raise ValueError("\n".join(_problem(text, files) for text, files in wrong.items()))
    _check_folders(runs)
    return runs


def perturbed(run: PlannedRun, noise: float) -> PlannedRun:
    """Return a run with noise on its initial weights, in a folder `…_perturbed` beside its own.

    To a report, `semi_seed0_perturbed` is the group `semi` with one more seed. Without noise it is
    the same run.
    """
    if not noise:
        return run
    values = {"init_noise": noise, "run_dir": f"{run.settings.run_dir}_perturbed"}
    settings = make_settings(TrainSettings, run.settings.model_dump() | values, "--perturb")
    return replace(run, parameters=run.parameters | values, settings=settings)


def check_network(model: str, pretrained: bool) -> None:
    """Raise ValueError if there is no such network, or its weights are not available.

    A network of the hub may still have to be downloaded.
    """
    if missing_network(model):
        return
    try:
        input_spec(model, pretrained)
    except ValueError as error:
        raise ValueError(f": model: {str(error).removeprefix('model: ')}") from error


def _problem(text: str, files: Sequence[Path]) -> str:
    """Return an error that several run files share once, with the first of them."""
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{others}{text}" if text.startswith(":") else text


def find_run_files(path: str | Path) -> list[Path]:
    """Return the run files of a path, sorted: of a folder those in it, or else those below it."""
    place = project_path(path)
    matches = [place] if place.exists() else sorted(place.parent.glob(place.name))
    if not matches:
        raise ValueError(f"{path}: no such file or folder{_near_path(place)}")
    files = []
    for match in matches:
        groups = ([match], match.glob("*.yaml"), match.rglob("*.yaml"))
        candidates = ([file for file in sorted(group) if is_run_file(file)] for group in groups)
        files += next(filter(None, candidates), [])
    if not files:
        raise ValueError(
            f"{path}: no run file; give a YAML file next to a {RECIPE}, a folder of them, or a "
            "folder of such folders"
        )
    return files


def _near_path(place: Path) -> str:
    """Return a hint with the closest name in the folder where the path of a run ends."""
    while not place.parent.is_dir():
        place = place.parent
    names = [p.name for p in place.parent.iterdir() if p.is_dir() or p.suffix == ".yaml"]
    return did_you_mean(place.name, names) or f"; {place.parent} has {', '.join(sorted(names))}"


def expand(parameters: dict[str, Any], grid: Grid) -> Iterator[dict[str, Any]]:
    """Yield the parameters of a run for each of its seeds and each combination of a grid's values.

    `seed` in the grid replaces the `seeds` of a run file.
    """
    grid = dict(grid)
    if SEEDS in grid:
        parameters = parameters | {SEEDS: list(grid.pop(SEEDS))}
    elif "seed" in grid:
        parameters = {name: value for name, value in parameters.items() if name != SEEDS}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        varied = {name: value for name, value in chosen.items() if len(grid[name]) > 1}
        run_dir = _run_dir_of_folder(parameters | chosen) + _suffix(varied)
        yield from split_seeds(parameters | chosen | {"run_dir": run_dir})


def _run_dir_of_folder(parameters: Mapping[str, Any]) -> str:
    """Return `run_dir`; in place of `outputs/folder` that named after the folder of own videos.

    A folder of the same name elsewhere gets the digest of its path, as its prepared folder has.
    """
    run_dir, root = Path(parameters["run_dir"]), parameters.get("videos_dir")
    if run_dir.parent != Path("outputs/folder") or not root:
        return str(run_dir)
    root = project_path(root)
    place = run_dir.parent.with_name(root.name)
    for path in project_path(place).glob("*/params.yaml"):
        other = read_yaml(path).get("videos_dir")
        if other and project_path(other) != root and not is_gone(other):
            place = place.with_name(dataset_folder("folder", str(root), "").name[len("folder-") :])
    return str(place / run_dir.name)


def _suffix(varied: dict[str, Any]) -> str:
    """Return the end of a run's name; the seed comes last, where reports look for it."""
    texts = []
    for name in sorted(varied, key="seed".__eq__):
        value = varied[name]
        text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
        texts.append("_" + name + re.sub(r"[^\w.+-]", "-", text))
    return "".join(texts)


def fill_in(parameters: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Fill in the values that a recipe leaves to the footage and the machine (`auto`).

    A run that was begun keeps the values that it was begun with. Returns the parameters, None for a
    probe without weights; and notes for the user. ValueError if the videos are not laid out as
    expected.
    """
    notes = []
    is_probe = parameters.get("objective") == "linear_probe"
    if is_probe and parameters.get("epochs", 1) not in (1, AUTO):
        parameters = parameters | {"epochs": 1, "warmup_epochs": 0.0, "lr_restart_epochs": []}
        notes = ["epochs 1: a probe has one; the value that was set is for the other runs"]
    parameters = parameters | _begun_values(parameters)
    if not _open_names(parameters):
        return parameters, notes
    check_set_values(TrainSettings, parameters)  # others follow from them
    values, reasons = resolve_auto(parameters)
    return values, reasons if values is None else [*notes, *reasons]


def _open_names(parameters: Mapping[str, Any]) -> set[str]:
    return {name for name, value in parameters.items() if value == AUTO} - {"device"}


def _begun_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `auto` parameters that the run was begun with, if it was."""
    path = RunDir(parameters["run_dir"]).params_path
    begun = read_yaml(path) if path.is_file() else {}
    root = begun.get("videos_dir")
    if root != parameters.get("videos_dir") and not is_gone(root):
        return {}
    return {name: begun[name] for name in _open_names(parameters) & begun.keys()}


def _check_folders(runs: list[PlannedRun]) -> None:
    folders: dict[Path, PlannedRun] = {}
    for run in runs:
        first = folders.setdefault(run.run_dir, run)
        if first is not run:
            files = " and ".join(dict.fromkeys((str(first.source), str(run.source))))
            raise ValueError(
                f"{files}: two runs share run_dir {run.settings.run_dir!r}; give each its own"
            )


# --- State ----------------------------------------------------------------------------------------


def state_of(run: PlannedRun) -> tuple[str, str]:
    """Return the state of a run, and its epoch or why it is refused."""
    status = read_status(run.run_dir)
    if status.phase == "missing":
        return (REFUSED, status.error) if status.error else (TO_DO, "")
    if changes := differences(RunDir(run.run_dir).settings(), run.settings):
        remedy = f"choose another run_dir, or delete {run.run_dir}"
        return REFUSED, "settings changed: " + "; ".join([*changes, remedy])
    if status.epoch >= run.settings.epochs:
        return (COMPLETE if status.is_tested and _is_test_current(run) else TO_EVALUATE), ""
    return (TO_DO, "") if status.step is None else (TO_CONTINUE, f"epoch {status.epoch}")


def _is_test_current(run: PlannedRun) -> bool:
    """Return True if the test result is of the protocol and the data of the settings."""
    folder = RunDir(run.run_dir)
    try:
        protocol = read_result(folder).get("protocol", {})
    except ValueError:  # damaged; the report names it
        return True
    protocol |= {name: getattr(folder.settings(), name) for name in ROOTS}
    return all(getattr(run.settings, name, None) == value for name, value in protocol.items())


# --- Size -----------------------------------------------------------------------------------------


def estimate_clips(s: TrainSettings) -> int | None:
    """Return the number of clips that a run trains on; None if a split's length is not known."""
    if (numbers := count_videos(s)) is None:
        return None
    labeled, unlabeled, _ = numbers
    if not s.is_semi_supervised:
        return s.epochs * count_steps(labeled, s) * s.labeled_batch
    own = labeled if s.unlabeled_dataset is None else 0
    return s.epochs * count_steps(own + unlabeled, s) * (s.labeled_batch + s.unlabeled_batch)


def cost_of(s: TrainSettings) -> tuple[float, str]:
    """Return the hours of a run on one GPU, 0 if not known, and its cost in words.

    The GPU is the last one of `params/speed.csv`; without a row for the network, the words are
    empty. Weak and strong view count each, validation and test do not; time and memory grow with
    the pixels of a clip.
    """
    table = read_table("speed.csv")
    is_like = (table["model"] == s.model) & (table["precision"] == s.precision)
    rows = table[is_like & (table["gpu"] == table["gpu"].iloc[-1])]
    if s.device != "cuda" or rows.empty:
        return 0.0, ""
    row, size = rows.iloc[-1], s.clip_len * s.crop_size**2 / (8 * 224**2)
    steps = (estimate_clips(s) or 0) / sum(s.batches.values())
    views = sum(s.batches.values()) + s.batches.get("unlabeled_batch", 0)
    hours = steps * views * size / row["clips_per_s"] / 3600
    clips = views // num_micro_batches(s.batches, s.micro_batch, 1)
    text = f"{row['memory_gb'] * clips * size / row['clips']:.1f} GB for a pass of {clips} clips"
    if hours:
        text = f"{hours / 8:,.1f} h on 8 {row['gpu']}, {hours:,.1f} h on one; {text}"
    return hours, text


@functools.cache
def read_table(name: str) -> pd.DataFrame:
    """Return a table of `params/`."""
    return pd.read_csv(PROJECT_ROOT / "params" / name, comment="#")


def count_videos(s: TrainSettings) -> tuple[int, int, int] | None:
    """Return the labeled, unlabeled and validation videos of a run; None if not known yet.

    Unlabeled videos are those of the unlabeled split that are not labeled as well.
    """
    sizes = [split_sizes(*s.labeled_source, name) for name in (s.labeled_split, s.val_split)]
    sizes.append((0, 0))
    if s.reads_unlabeled:
        sizes[2] = split_sizes(*s.unlabeled_source, s.unlabeled_split)
    if None in sizes:
        return None
    labeled = round(sizes[0][0] * s.labeled_fraction)
    shared = labeled if s.reads_unlabeled and s.unlabeled_dataset is None else 0
    return labeled, sum(sizes[2]) - shared, sizes[1][0]


def split_sizes(
    dataset: str, root: str | None, prepared_dir: str, name: str
) -> tuple[int, int] | None:
    """Return the labeled and the unlabeled videos of a split; None if not known.

    They are from its file, else from the folder of own videos, else from the catalog.
    """
    if dataset == "folder" and root is None:
        return None
    path = dataset_folder(dataset, root, prepared_dir) / "splits" / f"{name}.txt"
    path = Path(name) if name.endswith(".txt") else path
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\n")
        unlabeled = sum(line.endswith(" -1") for line in lines)
        return sum(bool(line.strip()) for line in lines) - unlabeled, unlabeled
    if dataset == "folder":
        return _folder_counts(project_path(root)).get(name)
    known = {s.name: (s.num_videos, 0) for s in CATALOG[dataset].splits if s.num_videos is not None}
    return known.get(name)


@functools.cache  # a plan asks for each split of each run, and the progress bar every two seconds
def _folder_counts(root: Path) -> dict[str, tuple[int, int]]:
    """Return `split_counts` of a folder of videos that is not prepared yet."""
    return split_counts(find_videos(root).videos, PrepareSettings().val_fraction)


def class_names(dataset: str, root: str | None, prepared_dir: str) -> list[str]:
    """Return the classes of a data set, prepared or a folder of videos; empty if not known."""
    with contextlib.suppress(ValueError, OSError):  # of unusable data, which preparing reports
        folder = dataset_folder(dataset, root, prepared_dir)
        if is_prepared(folder):
            return read_description(folder)["classes"]
        if dataset == "folder":
            classes = find_videos(project_path(root)).videos["class"]
            return sorted(classes[classes != ""].unique())
    return []


# --- Text -----------------------------------------------------------------------------------------


def plan_text(runs: Sequence[PlannedRun]) -> str:
    """Return the plan as text: a paragraph for each study, then the data."""
    lines, states = [], {run.run_dir: state_of(run) for run in runs}
    costs = {run.run_dir: cost_of(run.settings) for run in runs}
    for folder, group in itertools.groupby(runs, key=lambda run: run.run_dir.parent):
        study = list(group)
        lines.append(f"{folder.name}: {format_runs(len(study))} -> {folder}")
        lines += _study_lines(study, states, costs)
    settings = [run.settings for run in runs]
    lines += ["data", *_data_lines(settings)]
    counts = Counter(state for state, _ in states.values())
    counted = ", ".join(f"{number} {state}" for state, number in counts.items())
    total = sum(filter(None, map(estimate_clips, settings)))
    lines.append(
        f"{format_runs(len(runs))} ({counted}); {total:,} clips of splits with known sizes"
    )
    if hours := sum(hours for hours, _ in costs.values()):
        lines[-1] += f"; {hours / 8:,.0f} h on 8 GPUs, {hours:,.0f} h on one"
    return "\n".join(lines)


def _study_lines(
    study: Sequence[PlannedRun],
    states: Mapping[Path, tuple[str, str]],
    costs: Mapping[Path, tuple[float, str]],
) -> Iterator[str]:
    yield from notes_of(study)
    width = max(len(run.name) for run in study)
    for run in study:
        state = ": ".join(filter(None, states[run.run_dir]))
        yield f"  {run.name:<{width}}  {_clips_text(run.settings)}  [{state}]"
        if text := "; ".join(filter(None, [costs[run.run_dir][1], *_expected_texts(run)])):
            yield f"  {'':<{width}}  {text}"


def _expected_texts(run: PlannedRun) -> Iterator[str]:
    names = [run.run_dir.parent.name, group_of(run.name)]
    for *key, top1, source in read_table("paper.csv").itertuples(index=False):
        if key == names:
            yield f"top-1 {top1} in the paper ({source})"
    for *key, split, low, high in read_table("expected.csv").itertuples(index=False):
        if key == names:
            yield f"top-1 {low} to {high} on {split} (params/expected.csv)"


def notes_of(runs: Sequence[PlannedRun]) -> list[str]:
    """Return the notes of runs, each once, with the names of its runs."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            names.setdefault(note, []).append(run.name)
    return [
        f"  {note}" + ("" if len(of) == len(runs) else f" ({', '.join(of)})")
        for note, of in names.items()
    ]


def _data_lines(runs: Sequence[TrainSettings]) -> Iterator[str]:
    for need in data_requirements(runs):
        place = f" ({need.folder})" if need.folder else ""
        missing = need.missing()
        state = ", ".join(missing) or ("prepared" if need.is_prepared else "prepared by the batch")
        yield f"  {need.dataset}{place}: {state}; splits {', '.join(sorted(need.splits))}"
        if command := missing and need.command():
            yield f"    {command}"
    yield from (f"  {text}" for text in missing_networks(runs))


def _clips_text(settings: TrainSettings) -> str:
    text = settings.labeled_split
    if settings.labeled_fraction < 1:
        text = f"{100 * settings.labeled_fraction:g} % of {text}"
    if settings.reads_unlabeled:
        text += f" + {settings.unlabeled_dataset or settings.dataset}/{settings.unlabeled_split}"
    if numbers := count_videos(settings):
        text += ": {:,} labeled, {:,} unlabeled, {:,} for validation".format(*numbers)
    clips = estimate_clips(settings)
    amount = "?" if clips is None else f"{clips:,}"
    return f"{settings.epochs:>5} epochs  {amount:>11} clips  {text}"
