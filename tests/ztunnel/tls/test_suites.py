"""The TLS suites of a worker: Istio's two, the cheaper one first. The ssl module cannot choose them, OpenSSL can."""

from __future__ import annotations

import os
import subprocess
import sys

from ztunnel.__main__ import children

_ASK = """
import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
print(*(one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.3"))
"""


def suites(env: dict[str, str]) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _ASK], env=env, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_workers_offer_and_take_the_two_aes_suites_only() -> None:
    director, *workers = children({"ZTUNNEL_WORKER_THREADS": "2"}, "/nowhere/director.sock")
    assert not director.env
    for worker in workers:
        assert suites({**os.environ, **worker.env}) == ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]


def test_an_operator_who_names_a_configuration_is_obeyed() -> None:
    worker = children({"ZTUNNEL_WORKER_THREADS": "1", "OPENSSL_CONF": "/etc/fips.cnf"}, "/nowhere/director.sock")[1]
    assert worker.env == {"OPENSSL_CONF": "/etc/fips.cnf"}


def test_without_it_there_would_be_others() -> None:
    env = {key: value for key, value in os.environ.items() if key != "OPENSSL_CONF"}
    assert "TLS_CHACHA20_POLY1305_SHA256" in suites(env)
