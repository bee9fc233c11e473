"""``python -m registry``: the command line, even if the script is not on the path."""

import sys

from registry.cli.main import main

sys.exit(main())
