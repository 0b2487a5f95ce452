"""The library behind the notebooks."""

import os

# Read when torch is loaded: idle OpenMP threads sleep instead of busy-waiting. On a busy machine
# the default makes two threads 20 times slower than one (benchmarks/README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
