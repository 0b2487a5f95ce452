"""A run that is sent SIGTERM while it validates; a process of its own, started by `lib.doctor`."""

import sys

from lib.doctor import runs
from lib.learn import training
from lib.run.processes import leave

if __name__ == "__main__":
    training.train_worker = runs.signalled_worker
    leave(training.main(sys.argv[1:]))
