"""One agent per node. The whole agent is tested on real nodes, in tests/lab/test_agent*.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.server import only_one
from ambient.errors import Unavailable


def test_a_second_agent_of_a_node_is_refused_and_the_next_after_the_first_is_not(tmp_path: Path) -> None:
    with only_one(tmp_path / "state"), pytest.raises(Unavailable, match="another agent"), only_one(tmp_path / "state"):
        raise AssertionError("two at once")
    with only_one(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
