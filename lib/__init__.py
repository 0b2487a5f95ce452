"""The small library behind the notebooks."""

import os

# Read when torch is loaded: threads that wait for each other sleep instead of turning in circles.
# On a busy machine the default makes two threads 20 times slower than one (benchmarks/README.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
