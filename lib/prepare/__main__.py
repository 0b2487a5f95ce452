"""`python -m lib.prepare`."""

import sys

from lib.prepare.steps import main

if __name__ == "__main__":
    sys.exit(main())
