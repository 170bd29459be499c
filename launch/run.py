"""Run an experiment under any launcher: ``accelerate launch launch/run.py FILE`` is ``anastyle run FILE``."""

import sys

from anastyle.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
