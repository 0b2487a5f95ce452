"""A moving average of the network: it is tested, and may give the pseudo-labels."""

from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """A copy of a network that follows it: average = decay · average + (1 − decay) · network.

    The first update takes the weights as they are; buffers are always the network's.

    Args:
        model: The network.
        decay: In [0, 1); 0 for no average: then `network` is the network itself.

    Source: Tarvainen and Valpola, "Mean teachers are better role models" (arXiv 1703.01780).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.network, self._model, self._average = model, model, None
        if decay:
            self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)).eval()
            self.network = self._average.module

    def update(self) -> None:
        """Follow the network by one step."""
        if self._average is not None:
            self._average.update_parameters(self._model)

    def state_dict(self) -> dict[str, Any]:
        """Return the average for a checkpoint; empty where there is none."""
        return {} if self._average is None else self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with a state."""
        if self._average is not None:
            self._average.load_state_dict(state)


def tested_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that are tested: the average's, where there is one."""
    average = checkpoint.get("average")
    if not average:
        return checkpoint["model"]
    weights = {name.removeprefix("module."): value for name, value in average.items()}
    del weights["n_averaged"]
    return weights
