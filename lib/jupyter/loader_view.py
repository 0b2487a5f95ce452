"""The second page of notebook 2: what a training step is given."""

from typing import TYPE_CHECKING

import ipywidgets as widgets

from lib.config import PROJECT_ROOT, project_path
from lib.jupyter.html import error_html, escape, wrapping
from lib.jupyter.tiles import compose, strip_html
from lib.jupyter.training_batch import run_settings, training_settings, view_training_batch
from lib.params import is_run_file

if TYPE_CHECKING:
    from lib.jupyter.explorer import AugmentationExplorer

THESE_KNOBS = "these knobs"


class LoaderView:
    """What a training step feeds to the network: of these knobs, or of any run's settings.

    Args:
        explorer: Whose knobs are "these knobs".
    """

    def __init__(self, explorer: "AugmentationExplorer"):
        self.explorer = explorer
        self.source = widgets.Combobox(
            value=THESE_KNOBS, options=[THESE_KNOBS, *known_runs()], description="settings of",
            placeholder="a params.yaml, or a run file beside a recipe.yaml",
            layout=widgets.Layout(width="380px"),
        )  # fmt: skip
        self.step = widgets.BoundedIntText(0, min=0, max=10**7, description="step")
        self.step.layout.width, self.step.style.description_width = "130px", "40px"
        self.next = widgets.Button(description="next step", icon="step-forward")
        self.button = widgets.Button(description="show", button_style="info", icon="play")
        self.next.on_click(lambda _: self._next())
        self.button.on_click(lambda _: self.show())
        self.result = widgets.HTML("loading the first step …")
        self._is_opened = False
        controls = [self.source, self.step, self.button, self.next]
        for button in (self.button, self.next):
            button.layout.width = "110px"
        controls = widgets.HBox(controls, layout=wrapping())
        self.widget = widgets.VBox([controls, self.result])

    def open(self) -> None:
        """Show the first step when the page is opened for the first time."""
        if not self._is_opened:
            self.show()

    def _next(self) -> None:
        self.step.value += 1
        self.show()

    def show(self) -> None:
        """Load the step's first clips and show them."""
        self._is_opened, explorer = True, self.explorer
        try:
            if self.source.value == THESE_KNOBS:
                settings = training_settings(explorer.settings, explorer.dataset)
            else:
                settings = run_settings(project_path(self.source.value))
            fed = view_training_batch(settings, self.step.value)
        except (ValueError, OSError) as error:
            self.result.value = error_html(error)
            return
        words = "<br>".join(escape(word) for word in fed.words)
        self.result.value = f"{strip_html(compose(fed.tiles, fed.columns))}<p>{words}</p>"


def known_runs() -> list[str]:
    """Return the parameter files of the project's studies and runs, relative to its root."""
    found = [path for path in PROJECT_ROOT.glob("params/*/*.yaml") if is_run_file(path)]
    found += PROJECT_ROOT.glob("outputs/*/*/params.yaml")
    return sorted(path.relative_to(PROJECT_ROOT).as_posix() for path in found)
