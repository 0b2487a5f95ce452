"""The files of a study: a recipe, and a run file beside it for each run."""

import re
from pathlib import Path

RECIPE = "recipe.yaml"  # what the runs of a study share


def is_run_file(path: Path) -> bool:
    """Whether a file is a run of a study: YAML beside a recipe."""
    is_one = path.suffix == ".yaml" and path.name != RECIPE
    return is_one and (path.parent / RECIPE).is_file()


def parameter_files(run_file: Path) -> list[Path]:
    """Return the files that a run consists of; a later one wins, as with papermill's `-f … -f …`.

    They are what several studies share, if the first line of the recipe names such a file, as
    `# over: ../paper.yaml` does, the recipe of the study, and the run file.

    Raises:
        ValueError: If no recipe stands beside the run file, or what it is laid over is not there.
    """
    if not is_run_file(run_file):
        raise ValueError(f"{run_file}: no {RECIPE} beside it; a study has a recipe and run files")
    recipe = run_file.parent / RECIPE
    with open(recipe, encoding="utf-8") as file:
        found = re.match(r"# over: (\S+)", file.readline())
    if found is None:
        return [recipe, run_file]
    shared = (recipe.parent / found[1]).resolve()
    if not shared.is_file():
        raise ValueError(f"{recipe}: its first line names {found[1]}, which is not there")
    return [shared, recipe, run_file]
