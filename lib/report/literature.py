"""The runs of a study among the numbers of the field, with what makes them comparable or not."""

from collections.abc import Sequence

import pandas as pd

from lib.config import PROJECT_ROOT, TrainSettings
from lib.report.results import rows_of
from lib.runs.run_dir import RunDir

LITERATURE = PROJECT_ROOT / "params" / "literature.csv"
COLUMNS = ["method", "backbone", "pretraining", "labeled_videos", "top1", "views", "epochs"]


def field_table(runs: Sequence[RunDir]) -> pd.DataFrame:
    """Set the runs among published numbers with as many labelled videos of the same data set.

    Args:
        runs: Evaluated runs; each counts on its first test list.

    Returns:
        Columns data set, `COLUMNS` and source, the best first for each number of labels; blank
        where nothing is known. Empty where nothing was published for such runs.
    """
    ours = pd.DataFrame([_row(run) for run in runs])
    known = pd.read_csv(LITERATURE, dtype={"labels": str})
    asked = ["dataset", "labeled_videos"]
    known = known.merge(ours[asked].drop_duplicates(), on=asked)
    ours = ours.merge(known[asked].drop_duplicates(), on=asked)
    groups = ours.groupby([column for column in ours if column != "top1"], sort=False)
    table = pd.concat([known, groups["top1"].mean().round(1).reset_index()])
    table = table.reindex(columns=["dataset", *COLUMNS, "source"])
    table = table.sort_values([*asked, "top1"], ascending=[True, True, False])
    return table.fillna("").reset_index(drop=True)


def _row(run: RunDir) -> dict[str, object]:
    settings, first = run.settings(), rows_of(run)[0]
    return {
        "dataset": settings.dataset,
        "labeled_videos": first["labels"],
        "method": first["group"],
        "backbone": settings.model,
        "pretraining": pretraining_of(settings),
        "top1": first["top1"],
        "views": f"{settings.test_num_clips} x {settings.test_num_crops}",
        "epochs": str(settings.epochs),
        "source": "these runs",
    }


def pretraining_of(settings: TrainSettings) -> str:
    """Return in words what a run's network had learned before."""
    if settings.weights is not None:
        return "from a file"
    if settings.pretrained:
        return "published weights"
    teachers = {
        "ImageNet teacher": settings.distillation_weight > 0,
        "soft targets": settings.soft_targets is not None,
    }
    return ", ".join(name for name, is_used in teachers.items() if is_used) or "none"
