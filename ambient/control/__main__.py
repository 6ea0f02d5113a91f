"""`python -m ambient.control`."""

import sys

from ambient.control.server import main

sys.exit(main())
