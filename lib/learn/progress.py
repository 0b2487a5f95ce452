"""Showing the progress of a run from its log."""

import time

from lib.learn.runs import Run


class LogFollower:
    """Prints a line for each validated epoch of a run as its log grows.

    Args:
        run: The run.
        epochs: Its number of epochs.
    """

    def __init__(self, run: Run, epochs: int):
        self.run, self.epochs = run, epochs
        self.shown = len(run.log_entries())
        self.started = time.perf_counter()
        self.first_epoch = run.log_entries()[-1]["epoch"] if self.shown else 0

    def show(self) -> None:
        """Print what is new."""
        entries = self.run.log_entries()
        for entry in entries[self.shown :]:
            if "eval/top1_video" in entry:
                print(self._line(entry), flush=True)
        self.shown = len(entries)

    def _line(self, entry: dict) -> str:
        elapsed = time.perf_counter() - self.started
        left = elapsed / max(1, entry["epoch"] - self.first_epoch) * (self.epochs - entry["epoch"])
        parts = [f"epoch {entry['epoch']}/{self.epochs}", f"loss {entry['loss/total']:.3f}"]
        if "ssl/mask_rate" in entry:
            parts.append(f"confident {100 * entry['ssl/mask_rate']:.0f} %")
            accuracy = entry["ssl/pseudo_label_accuracy"]
            parts.append("right -" if accuracy is None else f"right {100 * accuracy:.0f} %")
        parts.append(f"val top-1 {entry['eval/top1_video']:.1f} %")
        parts.append(f"{entry['samples_per_s']:.0f} clips/s")
        parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        return " | ".join(parts)
