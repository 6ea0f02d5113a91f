"""The L4 data plane: one director and N workers that carry the traffic of every captured pod of a node."""

from typing import Final

VERSION: Final = "0.1.0"
