"""``python -m studylib``: the command line."""

import sys

from studylib.cli import main

sys.exit(main())
