"""Settings of notebook 4."""

from typing import Literal

from lib.config import Count, Natural, Settings


class EvaluateSettings(Settings):
    """Settings of notebook 4; the test protocol itself is the run's (`test_*`).

    Attributes:
        run_dir: Folder of the run.
        checkpoint: `last`, or `best` on the validation list (optimistic: it chose by it).
        batch_clips: Views in one forward pass: the memory of testing, whatever test_num_clips is.
        invariance_videos: Videos of the last test list that invariance is measured on; drawn
            by a fixed seed.
        compare_with: Folder of a second tested run of the same data, to set beside this one.
        num_processes: Processes to share the videos; 0 for one per GPU, or one on a CPU.
    """

    run_dir: str = "outputs/quickstart/semi"
    checkpoint: Literal["last", "best"] = "last"
    batch_clips: Count = 32
    invariance_videos: Count = 60
    compare_with: str | None = None
    num_processes: Natural = 0
