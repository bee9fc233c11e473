"""``python -m registry``: the command line, also where the script is not on the path."""

import sys

from registry.cli.main import main

sys.exit(main())
