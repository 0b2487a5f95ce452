"""The settings of notebooks 2 and 5."""

from lib.config import ClipSettings, Count, Natural, Settings


class LookSettings(ClipSettings):
    """Settings of notebook 2.

    Attributes:
        list_name: The list whose videos are shown.
        num_videos: How many of them.
        seed: Seed of everything that is drawn.
        train_params: YAML of a run whose training clips are shown; None for one with these clips.
    """

    list_name: str = "train"
    num_videos: Count = 4
    seed: Natural = 0
    train_params: str | None = None


class ReportSettings(Settings):
    """Settings of notebook 5.

    Attributes:
        study_dir: Folder whose run folders are compared.
        title: Title of the page.
        baseline: The group of runs (name without seed) that all others are compared with; empty
            for what the study claims, else the supervised ones with weak views.
        compare: Two groups of runs whose classes are compared; empty for those of the first
            question.
    """

    study_dir: str = "outputs/quickstart"
    title: str = "Quick start"
    baseline: str = ""
    compare: list[str] = []
