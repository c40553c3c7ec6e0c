"""``python -m trackserve.cli``: the command line."""

import sys

from trackserve.cli import main

sys.exit(main())
