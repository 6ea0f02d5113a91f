"""Where pins may live. Mounting is tested on nodes of namespaces, in tests/lab/test_bpffs.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.datapath.bpffs import ensure_bpffs
from ambient.errors import KernelError


def test_another_file_system_cannot_hold_pins(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="not a bpffs"):
        ensure_bpffs(tmp_path / "ambient")
