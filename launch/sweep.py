"""Run a sweep under any launcher: ``accelerate launch launch/sweep.py FILE`` is ``anastyle sweep FILE``."""

import sys

from anastyle.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
