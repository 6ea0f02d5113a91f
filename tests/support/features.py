"""Kernel features that a test may need. A skip must name one of these, and the conftest proves that it is missing.

Use `need("tcx")` at the start of a test or fixture. Any other skip fails the run: it would hide a test that could
have run here. Each probe answers from evidence on this machine and returns "" when the feature is there, else why not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

PREFIX = "missing kernel feature"


def kernel_version() -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert match is not None, os.uname().release
    return int(match[1]), int(match[2])


def _since(major: int, minor: int) -> Callable[[], str]:
    def probe() -> str:
        found = kernel_version()
        return "" if found >= (major, minor) else f"kernel {found[0]}.{found[1]}, needs {major}.{minor}"

    return probe


def _ipv6() -> str:
    return "" if Path("/proc/net/if_inet6").exists() else "/proc/net/if_inet6 is not there"


def _curl_h2_proxy() -> str:
    told = subprocess.run(["curl", "--help", "all"], capture_output=True, text=True, check=False, timeout=20).stdout
    return "" if "--proxy-http2" in told else "curl has no --proxy-http2"


def _go() -> str:
    return "" if shutil.which("go") else "no go in PATH"


def _x86() -> str:
    return "" if os.uname().machine == "x86_64" else f"this is {os.uname().machine}"


def _own_openssl() -> str:
    import ssl

    libraries = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/libssl" in line]
    return "" if libraries else f"{ssl.OPENSSL_VERSION} is built into the interpreter"


FEATURES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "tcx": _since(6, 6),
        "sk_assign to SO_REUSEPORT sockets": _since(6, 6),
        "ipv6": _ipv6,
        "curl with HTTP/2 to proxies": _curl_h2_proxy,
        "go toolchain": _go,
        "an x86-64 processor": _x86,
        "an OpenSSL beside the interpreter": _own_openssl,
    }
)


def need(feature: str) -> None:
    """Skip the running test if the kernel lacks `feature` (a key of FEATURES)."""
    missing = FEATURES[feature]()
    if missing:
        pytest.skip(f"{PREFIX}: {feature}: {missing}")


def unproven(reason: str) -> str:
    """ "" if the text of a skip is proven by a probe that still says "missing", else what is wrong with it."""
    text = reason.removeprefix("Skipped: ")
    kind, _, rest = text.partition(": ")
    feature = rest.partition(": ")[0]
    if kind != PREFIX or feature not in FEATURES:
        return f"skipped without naming a missing kernel feature ({text!r})"
    return "" if FEATURES[feature]() else f"skipped for {feature!r}, which this kernel has"
