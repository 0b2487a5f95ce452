"""What a batch will do: its runs, how far they are, and the data that they need.

Reads parameters and run folders only, and imports nothing slow: the plan of all experiments prints
within two seconds.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.config import PROJECT_ROOT, TrainSettings, project_path
from lib.data.frame_tables import PERSON_BOXES_FILE, TEACHER_FILE
from lib.parameters import make_settings, notebook_defaults, read_yaml
from lib.prepare.catalog import CATALOG, dataset_folder
from lib.run.folder import Run
from lib.run.state import read_state

NOTEBOOKS = PROJECT_ROOT / "notebooks"
RECIPE = "recipe.yaml"
MADE_ON_DEMAND = ("synthetic", "folder")  # data sets that need no download and no detector
NEEDS_ACTORS = ("actor_cutmix", "scene_cutout")  # as in lib.augment.scene, which is slow to import

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
        parameters: Recipe and run file laid over each other, as papermill's `-f -f` does.
        settings: The parameters over the notebook's own defaults, checked.
    """

    name: str
    source: Path
    parameters: dict[str, Any]
    settings: TrainSettings

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
    recipes: dict[Path, dict[str, Any]] = {}
    runs, wrong = [], []
    for path in files:
        try:
            if path.parent not in recipes:
                recipes[path.parent] = read_yaml(path.parent / RECIPE)
            parameters = recipes[path.parent] | read_yaml(path)
            for name, values in expand(path.stem, parameters, grid or {}):
                settings = make_settings(TrainSettings, defaults | values, str(path))
                runs.append(PlannedRun(name, path, values, settings))
        except ValueError as error:
            if str(error) not in wrong:
                wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    _check_folders(runs)
    return runs


def read_study(study: Path, grid: Grid | None = None) -> list[PlannedRun]:
    """Read one study; arguments and errors as in `read_plan`."""
    return read_plan([study], grid)


def find_run_files(path: str | Path) -> list[Path]:
    """Return the run files that a path means, sorted.

    Raises:
        ValueError: If there are none, or no recipe stands beside them.
    """
    place = project_path(path)
    if any(character in str(path) for character in "*?["):
        found = sorted(place.parent.glob(place.name))
        found = [p for p in found if p.name != RECIPE and (p.is_dir() or p.suffix == ".yaml")]
        if not found:
            raise ValueError(f"{path}: no file or folder has such a name")
        return [file for match in found for file in find_run_files(match)]
    if place.is_file() and place.suffix == ".yaml" and place.name != RECIPE:
        if not (place.parent / RECIPE).is_file():
            raise ValueError(f"{place}: no {RECIPE} beside it; a study has a recipe and run files")
        return [place]
    if (place / RECIPE).is_file():
        files = sorted(p for p in place.glob("*.yaml") if p.name != RECIPE)
        if not files:
            raise ValueError(f"{place}: no run file beside {RECIPE}")
        return files
    studies = sorted(p.parent for p in place.glob(f"*/{RECIPE}"))
    if not studies:
        raise ValueError(
            f"{place}: no {RECIPE}; give a run file, a study (a folder with a recipe and run "
            "files), or a folder of studies"
        )
    return [file for study in studies for file in find_run_files(study)]


def expand(
    name: str, parameters: dict[str, Any], grid: Grid
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield the name and the parameters of a run for each combination of a grid's values."""
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        varied = {key: value for key, value in chosen.items() if len(grid[key]) > 1}
        result = parameters | chosen
        if varied and "run_dir" in parameters:
            run_dir = Path(parameters["run_dir"])
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
    state = read_state(run.run_dir)
    if state.status == "missing":
        return (REFUSED, state.error) if state.error else (TO_DO, "")
    if differ := Run(run.run_dir).differences(run.settings):
        remedy = f"choose another run_dir, or delete {run.run_dir}"
        return REFUSED, "settings changed: " + "; ".join([*differ, remedy])
    if state.epoch >= state.epochs:
        return (COMPLETE if state.is_tested else TO_EVALUATE), ""
    return (TO_DO, "") if state.step is None else (TO_CONTINUE, f"epoch {state.epoch}")


# --- Data -----------------------------------------------------------------------------------------


@dataclass
class DataNeed:
    """What the runs of a batch need of one data set.

    Attributes:
        dataset: Its name in the catalog.
        data_root: Folder of the original videos.
        data_dir: Folder of the prepared data sets.
        folder: Where it is prepared; None if `data_root` is missing.
        lists: Lists that are read.
        actors: Whether person boxes are needed.
        teacher: Whether ImageNet scores are needed.
    """

    dataset: str
    data_root: str | None
    data_dir: str
    folder: Path | None
    lists: set[str] = field(default_factory=set)
    actors: bool = False
    teacher: bool = False

    @property
    def is_prepared(self) -> bool:
        """Whether the data set is there."""
        return self.folder is not None and (self.folder / "dataset.json").is_file()

    @property
    def is_made_on_demand(self) -> bool:
        """Whether the batch makes it by itself."""
        if self.folder is None or self.teacher or self.dataset not in MADE_ON_DEMAND:
            return False
        return self.dataset == "synthetic" or not self.actors

    def list_path(self, name: str) -> Path:
        """Return the file of a list."""
        return Path(name) if name.endswith(".txt") else self.folder / "lists" / f"{name}.txt"

    def missing(self) -> list[str]:
        """Return what is not there, in words."""
        if self.folder is None:
            return ["data_root is not set"]
        if not self.is_prepared:
            return [] if self.is_made_on_demand else ["not prepared"]
        absent = [f"no list {n!r}" for n in sorted(self.lists) if not self.list_path(n).is_file()]
        if self.actors and not (self.folder / PERSON_BOXES_FILE).is_file():
            absent.append("no person boxes")
        if self.teacher and not (self.folder / TEACHER_FILE).is_file():
            absent.append("no ImageNet scores")
        return absent

    def command(self) -> str:
        """Return the command that prepares what is missing."""
        if self.folder is None:
            return "--set data_root=/path/to/videos"
        parts = [f"python -m lib.prepare --dataset {self.dataset}"]
        if self.data_dir != "data":
            parts.append(f"--data_dir {self.data_dir}")
        has_archive = self.dataset == "synthetic" or bool(CATALOG[self.dataset].archives)
        if not self.is_prepared and (self.data_root or not has_archive):
            parts.append(f"--data_root {self.data_root or '/path/to/videos'}")
        if self.is_prepared and any("list" in problem for problem in self.missing()):
            parts.append("--list_files '[/path/to/list.txt]'")
        if self.actors and self.dataset != "synthetic":
            parts.append("--actor_boxes yolox")
        if self.teacher:
            parts.append("--teacher_scores compute")
        if self.dataset not in MADE_ON_DEMAND or self.actors or self.teacher:
            parts.append("--download true")
        return " ".join(parts)


def data_needs(runs: Iterable[PlannedRun]) -> list[DataNeed]:
    """Return what runs need of each data set, in the order of their first use."""
    needs: dict[tuple, DataNeed] = {}
    for run in runs:
        s = run.settings
        labeled = _need(needs, s.dataset, s.data_root, s.data_dir)
        labeled.lists |= {s.labeled_list, s.val_list, *s.test_lists}
        uses_actors = s.scene_augmentation in NEEDS_ACTORS
        labeled.actors |= uses_actors and s.labeled_scene_p > 0
        if s.is_semi_supervised:
            unlabeled = labeled
            if s.unlabeled_dataset is not None:
                unlabeled = _need(needs, s.unlabeled_dataset, s.unlabeled_data_root, s.data_dir)
            unlabeled.lists.add(s.unlabeled_list)
            unlabeled.actors |= uses_actors and s.unlabeled_scene_p > 0
            unlabeled.teacher |= s.distillation_weight > 0
    return list(needs.values())


def _need(needs: dict[tuple, DataNeed], name: str, root: str | None, data_dir: str) -> DataNeed:
    if name == "folder" and root is None:
        return needs.setdefault((name, None), DataNeed(name, root, data_dir, None))
    folder = dataset_folder(name, root, data_dir)
    return needs.setdefault((name, folder), DataNeed(name, root, data_dir, folder))


def problems(needs: Iterable[DataNeed]) -> list[str]:
    """Return what data is missing and how to get it, a text for each data set; empty for none."""
    return [
        f"data set {need.dataset}: {', '.join(need.missing())}\n    {need.command()}"
        for need in needs
        if need.missing()
    ]


def estimate_clips(run: PlannedRun) -> int | None:
    """Return how many clips a run trains on, labelled and unlabelled; None if not known yet."""
    s = run.settings
    labeled = list_length(s.dataset, s.data_root, s.data_dir, s.labeled_list)
    if not s.is_semi_supervised:
        if labeled is None:
            return None
        steps = max(1, round(labeled * s.labeled_fraction) // s.labeled_batch)
        return s.epochs * steps * s.labeled_batch
    source = (s.unlabeled_dataset, s.unlabeled_data_root)
    if s.unlabeled_dataset is None:
        source = (s.dataset, s.data_root)
    unlabeled = list_length(*source, s.data_dir, s.unlabeled_list)
    if unlabeled is None:
        return None
    steps = s.epochs * max(1, unlabeled // s.unlabeled_batch)
    return steps * (s.labeled_batch + s.unlabeled_batch)


def list_length(dataset: str, root: str | None, data_dir: str, name: str) -> int | None:
    """Return the videos of a list: of the file if it is there, else of the catalog, else None."""
    if dataset == "folder" and root is None:
        return None
    path = dataset_folder(dataset, root, data_dir) / "lists" / f"{name}.txt"
    path = Path(name) if name.endswith(".txt") else path
    if path.is_file():
        return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
    known = {entry.name: entry.num_videos for entry in CATALOG[dataset].lists}
    return known.get(name)


# --- Showing --------------------------------------------------------------------------------------


def plan_text(runs: Sequence[PlannedRun]) -> str:
    """Return the plan as text: a line a run, a paragraph a study, then the data."""
    lines, counts, total = [], Counter(), 0
    for folder in dict.fromkeys(run.run_dir.parent for run in runs):
        members = [run for run in runs if run.run_dir.parent == folder]
        lines.append(f"{folder.name}: {len(members)} runs -> {folder}")
        width = max(len(run.name) for run in members)
        for run in members:
            (state, detail), clips = state_of(run), estimate_clips(run)
            counts[state] += 1
            total += clips or 0
            line = (
                f"  {run.name:<{width}}  {run.settings.epochs:>5} epochs  {_count(clips):>7} clips"
            )
            lines.append(f"{line}  {_lists(run.settings)}  [{state}{detail and ': '}{detail}]")
    lines.append("data")
    for need in data_needs(runs):
        where = f" ({need.folder})" if need.folder else ""
        state = ", ".join(need.missing()) or ("prepared" if need.is_prepared else "made on demand")
        lines.append(f"  {need.dataset}{where}: {state}; lists {', '.join(sorted(need.lists))}")
        if need.missing():
            lines.append(f"    {need.command()}")
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    lines.append(f"{len(runs)} runs ({states}); {_count(total)} clips where the lists are known")
    return "\n".join(lines)


def _lists(settings: TrainSettings) -> str:
    text = settings.labeled_list
    if settings.labeled_fraction < 1:
        text = f"{100 * settings.labeled_fraction:g} % of {text}"
    if settings.is_semi_supervised:
        text += f" + {settings.unlabeled_dataset or settings.dataset}/{settings.unlabeled_list}"
    return text


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {unit}"
    return str(number)
