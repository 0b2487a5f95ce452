"""Execute one of the project's notebooks with papermill, in a process of its own.

    python -m lib.batch.execute 3_train.ipynb outputs/x/3_train.ipynb '{run_dir: outputs/x}'

Ctrl-C and SIGTERM are left to the batch, which asks runs to save a checkpoint.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import papermill
import yaml
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from papermill.iorw import load_notebook_node

from lib.registry import PROJECT_ROOT
from lib.runs.signals import end_with_parent, signal_name

NOTEBOOKS = PROJECT_ROOT / "notebooks"
INTERACTIVE = "interactive"  # tag of a cell that writes a user's file


def execute(notebook: str, output: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook; the executed copy is kept on failure too.

    ChildProcessError with the name of the signal if the kernel was killed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="kernel") as private:
        # A free TCP port may be taken by another kernel before this one listens; files are not.
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{private}/at")
        options = {"kernel_name": "python3", "cwd": NOTEBOOKS, "progress_bar": False, "km": kernel}
        try:
            content = load_notebook_node(str(NOTEBOOKS / notebook))
            content.cells = [c for c in content.cells if INTERACTIVE not in c.metadata.tags]
            papermill.execute_notebook(content, output, dict(parameters), **options)
        except DeadKernelError as error:
            status = kernel.provisioner.process.returncode
            cause = signal_name(-status) if status < 0 else f"exit status {status}"
            raise ChildProcessError(
                f"the kernel of {notebook} was ended by {cause}; the same command continues"
            ) from error
        finally:
            if run_sync(kernel.is_alive)():  # papermill leaves a kernel that it was given
                run_sync(kernel.shutdown_kernel)()


if __name__ == "__main__":
    end_with_parent(os.getppid())  # and with this process the kernel
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # the kernel does not inherit a handler
    execute(sys.argv[1], Path(sys.argv[2]), yaml.safe_load(sys.argv[3]))
