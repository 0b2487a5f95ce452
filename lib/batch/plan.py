"""What a batch will do: its runs, how far they are, and the data that they need.

A run is up to three files, each laid over the one before: what several studies share, which the
first line of a recipe names (`# over: ../paper.yaml`), the `recipe.yaml` of the study, and the run
file beside it (`lib.params.parameter_files`). By hand it is the same: `papermill -f -f -f`.

Reads parameters and run folders only, and imports nothing slow: the plan of all experiments prints
within two seconds.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.config import PROJECT_ROOT, TrainSettings, project_path
from lib.fileio import write_text
from lib.params import (
    AUTO,
    RECIPE,
    is_run_file,
    make_settings,
    notebook_defaults,
    parameter_files,
    read_layers,
    read_yaml,
)
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.prepare.requirements import data_requirements
from lib.runs.run_dir import ROOTS, RunDir, is_gone, read_result, read_status
from lib.train.schedule import count_steps

NOTEBOOKS = PROJECT_ROOT / "notebooks"

COMPLETE, TO_EVALUATE, TO_CONTINUE, TO_DO, REFUSED = (
    "complete",
    "to evaluate",
    "to continue",
    "to do",
    "refused",
)

Grid = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a batch.

    Attributes:
        name: The run file's name without suffix, and what a grid adds to it.
        source: The run file.
        parameters: Its files laid over each other, as papermill does it.
        settings: The parameters over the notebook's own defaults, checked.
        notes: What was sized by the footage and why, and what to know before it starts.
    """

    name: str
    source: Path
    parameters: dict[str, Any]
    settings: TrainSettings
    notes: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return project_path(self.settings.run_dir)


# --- Reading --------------------------------------------------------------------------------------


def read_plan(paths: Iterable[str | Path], grid: Grid | None = None) -> list[PlannedRun]:
    """Read the runs of run files, studies, folders of studies and patterns of them.

    Args:
        paths: Relative to the project's root, or absolute.
        grid: Values per parameter, laid over every run; more than one makes a run for each
            combination, with the values in its name and its `run_dir`.

    Raises:
        ValueError: If there is no recipe or no run, parameters are wrong, or two runs share a
            folder; names every file and field.
    """
    files = list(dict.fromkeys(itertools.chain.from_iterable(map(find_run_files, paths))))
    defaults = notebook_defaults(NOTEBOOKS / "3_train.ipynb")
    read = functools.cache(read_yaml)  # what runs share is parsed once
    runs, wrong = [], {}
    for path in files:
        try:
            parameters = read_layers(parameter_files(path), read)
            for name, values in expand(path.stem, parameters, grid or {}):
                sized, notes = fill_in(values)
                if sized is None:
                    print(f"{name}: {notes[0]}")
                    continue
                settings = make_settings(TrainSettings, defaults | sized, str(path))
                runs.append(PlannedRun(name, path, sized, settings, tuple(notes)))
        except ValueError as error:
            wrong.setdefault(str(error).removeprefix(str(path)), []).append(path)
    if wrong:
        raise ValueError(
            "\n".join(_problem(text, paths, grid or {}) for text, paths in wrong.items())
        )
    _check_folders(runs)
    return runs


def _problem(text: str, paths: Sequence[Path], grid: Grid) -> str:
    """Return an error once, with what it is about: some run files, or the grid that is over them.

    Args:
        text: The message; it begins with `: ` where the path of a run file stood before it.
        paths: The run files.
        grid: Its names stand before the lines of the message that are about it.
    """
    if not text.startswith(": "):
        return text
    fields = {line.strip().partition(":")[0] for line in text.splitlines()[1:]}
    if fields and fields <= grid.keys():
        return f"--set{text}"
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{others}{text}"


def fill_in(parameters: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Fill in what a recipe leaves to the footage and the machine (`auto`).

    A run that was begun keeps what it was begun with.

    Returns:
        The parameters, None where the run makes no sense here; and notes for the user.

    Raises:
        ValueError: If the videos are not laid out as expected.
    """
    known = []
    if parameters.get("objective") == "linear_probe" and parameters.get("epochs", 1) not in (
        1,
        AUTO,
    ):
        parameters = parameters | {"epochs": 1, "warmup_epochs": 0.0, "lr_restart_epochs": []}
        known = ["epochs 1: a probe has one; what was set is for the other runs"]
    parameters = _as_begun(parameters)
    if not _has_auto(parameters):
        return parameters, known
    from lib.prepare.auto_settings import resolve_auto  # opens videos

    sizes, notes = resolve_auto(parameters)
    return (None, notes) if sizes is None else (sizes.values, [*known, *sizes.reasons, *notes])


def _as_begun(parameters: dict[str, Any]) -> dict[str, Any]:
    """Fill in what is open with what the run was begun with, if it was."""
    path = RunDir(parameters.get("run_dir", "outputs")).params_path
    begun = read_yaml(path) if path.is_file() else {}
    root = begun.get("videos_dir")
    if root != parameters.get("videos_dir") and not is_gone(root):
        return parameters
    is_open = {name for name, value in parameters.items() if value == AUTO} - {"device"}
    return parameters | {name: begun[name] for name in is_open if name in begun}


def _has_auto(parameters: Mapping[str, Any]) -> bool:
    return any(value == AUTO for name, value in parameters.items() if name != "device")


def find_run_files(path: str | Path) -> list[Path]:
    """Return the run files that a path means, sorted.

    Raises:
        ValueError: If there are none, or no recipe stands beside them.
    """
    place = project_path(path)
    if any(character in str(path) for character in "*?["):
        return list(itertools.chain.from_iterable(map(find_run_files, _matches(place, path))))
    if place.is_file() and place.name != RECIPE:
        parameter_files(place)  # says what it lacks
        return [place]
    studies = [place] if (place / RECIPE).is_file() else _studies_in(place)
    return list(itertools.chain.from_iterable(map(_run_files_of, studies)))


def _matches(place: Path, pattern: str | Path) -> list[Path]:
    found = [p for p in sorted(place.parent.glob(place.name)) if p.is_dir() or is_run_file(p)]
    if not found:
        raise ValueError(f"{pattern}: no file or folder has such a name")
    return found


def _studies_in(folder: Path) -> list[Path]:
    studies = sorted(path.parent for path in folder.glob(f"*/{RECIPE}"))
    if not studies:
        raise ValueError(
            f"{folder}: no {RECIPE}; give a run file, a study (a folder with a recipe and run "
            "files), or a folder of studies"
        )
    return studies


def _run_files_of(study: Path) -> list[Path]:
    files = sorted(path for path in study.glob("*.yaml") if is_run_file(path))
    if not files:
        raise ValueError(f"{study}: no run file beside {RECIPE}")
    return files


def expand(
    name: str, parameters: dict[str, Any], grid: Grid
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the name and the parameters of a run for each combination of a grid's values."""
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        varied = {key: value for key, value in chosen.items() if len(grid[key]) > 1}
        result = parameters | chosen
        if varied and "run_dir" in result:
            run_dir = Path(result["run_dir"])
            result["run_dir"] = str(run_dir.with_name(_grid_name(run_dir.name, varied)))
        yield (_grid_name(name, varied), result)


def _grid_name(name: str, varied: Mapping[str, Any]) -> str:
    """Add values to a name; the seed comes last, where reports look for it."""
    base, mark, seed = name.rpartition("_seed")
    if not mark:
        base, seed = name, None
    for key, value in varied.items():
        if key == "seed":
            seed = value
        else:
            text = "+".join(map(str, value)) if isinstance(value, list) else str(value)
            base += "_" + key + re.sub(r"[^\w.+-]", "-", text)
    return base if seed is None else f"{base}_seed{seed}"


def _check_folders(runs: list[PlannedRun]) -> None:
    folders: dict[Path, PlannedRun] = {}
    for run in runs:
        first = folders.setdefault(run.run_dir, run)
        if first is not run:
            raise ValueError(
                f"{run.source}: runs {first.name} and {run.name} share run_dir "
                f"{run.settings.run_dir!r}; give each its own"
            )


# --- How far a run is -----------------------------------------------------------------------------


def state_of(run: PlannedRun) -> tuple[str, str]:
    """Return what is to be done for a run, and why it is refused or how far it is."""
    state = read_status(run.run_dir)
    if state.phase == "missing":
        return (REFUSED, state.error) if state.error else (TO_DO, "")
    if differ := RunDir(run.run_dir).differences(run.settings):
        remedy = f"choose another run_dir, or delete {run.run_dir}"
        return REFUSED, "settings changed: " + "; ".join([*differ, remedy])
    if state.epoch >= run.settings.epochs:
        is_tested = state.is_tested and _is_tested_so(run)
        return (COMPLETE if is_tested else TO_EVALUATE), ""
    return (TO_DO, "") if state.step is None else (TO_CONTINUE, f"epoch {state.epoch}")


def _is_tested_so(run: PlannedRun) -> bool:
    """Whether a test result is by the protocol of the settings, on their lists and data."""
    there = RunDir(run.run_dir)
    try:
        tested = read_result(there).get("protocol", {})
    except ValueError:  # damaged; who reads it says so
        return True
    tested |= {name: getattr(there.settings(), name) for name in ROOTS}
    return all(getattr(run.settings, name, None) == value for name, value in tested.items())


def write_test_settings(run: RunDir, values: Mapping[str, Any]) -> None:
    """Write how a finished run is tested, those of `values`, into its `params.yaml`."""
    test = {name: value for name, value in values.items() if name.startswith("test_")}
    now = make_settings(TrainSettings, run.settings().model_dump() | test, "the test")
    write_text(run.params_path, now.as_yaml())


def estimate_clips(s: TrainSettings) -> int | None:
    """Return the number of clips that a run trains on; None if a split's length is not known."""
    source, name, share, batch = (s.dataset, s.videos_dir), s.labeled_split, s.labeled_fraction, 0
    if s.is_semi_supervised:
        name, share, batch = s.unlabeled_split, 1.0, s.unlabeled_batch
        if s.unlabeled_dataset is not None:
            source = (s.unlabeled_dataset, s.unlabeled_videos_dir)
    length = split_length(*source, s.prepared_dir, name)
    if length is None:
        return None
    return s.epochs * count_steps(round(length * share), s) * (s.labeled_batch + batch)


def split_length(dataset: str, root: str | None, prepared_dir: str, name: str) -> int | None:
    """Return the videos of a split, from its file, else from the catalog; None if not known."""
    if dataset == "folder" and root is None:
        return None
    path = dataset_folder(dataset, root, prepared_dir) / "splits" / f"{name}.txt"
    path = Path(name) if name.endswith(".txt") else path
    if path.is_file():
        return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
    return {split.name: split.num_videos for split in CATALOG[dataset].lists}.get(name)


# --- Showing --------------------------------------------------------------------------------------


def plan_text(runs: Sequence[PlannedRun]) -> str:
    """Return the plan as text: a line a run, a paragraph a study, then the data."""
    lines, states = [], {run.run_dir: state_of(run) for run in runs}
    for _, study in itertools.groupby(runs, key=lambda run: run.run_dir.parent):
        lines += _study_lines(list(study), states)
    lines += ["data", *_data_lines(run.settings for run in runs)]
    counts = Counter(state for state, _ in states.values())
    counted = ", ".join(f"{number} {state}" for state, number in counts.items())
    total = sum(estimate_clips(run.settings) or 0 for run in runs)
    lines.append(f"{len(runs)} runs ({counted}); {_count(total)} clips where the lists are known")
    return "\n".join(lines)


def _study_lines(runs: Sequence[PlannedRun], states: Mapping[Path, tuple[str, str]]) -> list[str]:
    folder = runs[0].run_dir.parent
    lines = [f"{folder.name}: {len(runs)} runs -> {folder}", *notes_of(runs)]
    width = max(len(run.name) for run in runs)
    for run in runs:
        how_far = ": ".join(filter(None, states[run.run_dir]))
        lines.append(f"  {run.name:<{width}}  {_what(run.settings)}  [{how_far}]")
    return [*lines, f"  the first by hand: {by_hand(runs[0].source)}"]


def notes_of(runs: Sequence[PlannedRun]) -> list[str]:
    """Return what the user should know of runs, each line once, with the runs it is about."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            about.setdefault(note, []).append(run.name)
    return [
        f"  {note}" + ("" if len(names) == len(runs) else f" ({', '.join(names)})")
        for note, names in about.items()
    ]


def by_hand(run_file: Path) -> str:
    """Return the command that trains a run of the project by hand."""
    files = parameter_files(run_file)
    if _has_auto(parameters := read_layers(files)):
        files = [project_path(parameters["run_dir"]) / "params.yaml"]  # there once it was begun
    if files[0].is_relative_to(PROJECT_ROOT):
        files = [file.relative_to(PROJECT_ROOT) for file in files]
    return " -f ".join(["papermill notebooks/3_train.ipynb out.ipynb", *map(str, files)])


def _data_lines(runs: Iterable[TrainSettings]) -> Iterator[str]:
    for need in data_requirements(runs):
        place = f" ({need.folder})" if need.folder else ""
        missing = need.missing()
        state = ", ".join(missing) or ("prepared" if need.is_prepared else "prepared by the batch")
        yield f"  {need.dataset}{place}: {state}; splits {', '.join(sorted(need.splits))}"
        if missing:
            yield f"    {need.command()}"


def _what(settings: TrainSettings) -> str:
    text = settings.labeled_split
    if settings.labeled_fraction < 1:
        text = f"{100 * settings.labeled_fraction:g} % of {text}"
    if settings.reads_unlabeled:
        text += f" + {settings.unlabeled_dataset or settings.dataset}/{settings.unlabeled_split}"
    clips = _count(estimate_clips(settings))
    return f"{settings.epochs:>5} epochs  {clips:>7} clips  {text}"


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)
