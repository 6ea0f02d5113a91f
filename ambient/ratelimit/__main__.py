"""`python -m ambient.ratelimit`."""

import sys

from ambient.ratelimit.server import main

sys.exit(main())
