"""`python -m lib.batch`."""

import sys

from lib.batch.command import main
from lib.run.stop import sigterm_is_interrupt

if __name__ == "__main__":
    sigterm_is_interrupt()
    sys.exit(main())
