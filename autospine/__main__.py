"""`python -m autospine`."""

import sys

from autospine.cli import main

if __name__ == "__main__":
    sys.exit(main())
