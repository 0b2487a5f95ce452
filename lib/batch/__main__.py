"""`python -m lib.batch`."""

import signal
import sys

from lib.batch.command import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
