"""``python -m anastyle`` is ``anastyle``."""

import sys

from anastyle.cli import main

sys.exit(main())
