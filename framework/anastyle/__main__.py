"""``python -m anastyle`` is the command ``anastyle``."""

import sys

from anastyle.cli import main

if __name__ == "__main__":
    sys.exit(main())
