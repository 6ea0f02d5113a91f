"""`python -m ztunnel.director [--supervised] [--heirs=N]`."""

import sys

from ztunnel.director.app import main

sys.exit(main(sys.argv[1:]))
