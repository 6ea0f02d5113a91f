"""A descriptor that is no namespace is refused; a thread that cannot come home ends its process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ambient.errors import KernelError
from ambient.netns import entered


def test_what_is_no_namespace_cannot_be_entered() -> None:
    refused = pytest.raises(KernelError, match="cannot enter a network namespace")
    with open(os.devnull) as nothing, refused, entered(nothing.fileno()):
        raise AssertionError("inside")
    assert os.path.exists("/proc/thread-self/ns/net")


def test_a_process_that_cannot_return_home_aborts() -> None:
    """The way home is closed from inside; without the abort the process would go on in the wrong namespace."""
    script = (
        "import os, ctypes\n"
        "from ambient import netns\n"
        "calls = []\n"
        "def setns(descriptor):\n"
        "    calls.append(descriptor)\n"
        "    if len(calls) == 2: raise OSError(1, 'not permitted')\n"
        "netns._setns = setns\n"
        "with netns.entered(0): pass\n"
        "os.write(1, b'went on')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == -6
    assert "aborting" in result.stderr
    assert result.stdout == ""
