"""ztunnel as a pod of the mesh itself: its metrics over mTLS, and no other port of a proxy open to others there."""

from __future__ import annotations

import json
import subprocess
import sys


def test_a_peer_gets_ztunnels_metrics_through_its_own_tunnel_port() -> None:
    argv = ["unshare", "--net", sys.executable, "-m", "tests.support.own_pod_scene"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["status"] == 200
    assert told["metrics"]
    assert told["listening"].pop("15008") == ["*"]
    hosts = {host for found in told["listening"].values() for host in found}
    assert hosts == {"127.0.0.1", "[::1]"}
