"""`python -m ambient`: the command line."""

import sys

from ambient.cli.main import main

sys.exit(main())
