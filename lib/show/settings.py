"""Settings of notebook 5."""

from lib.config import Settings


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
