"""A run that is sent SIGTERM while it validates; a process of its own, started by `lib.doctor`."""

import sys

from lib.doctor import runs
from lib.runs.distributed import exit_now
from lib.train import fit

if __name__ == "__main__":
    fit.train_worker = runs.signalled_worker
    exit_now(fit.main(sys.argv[1:]))
