"""A server certificate out of files: read anew, and refused by file where it does not fit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ambient.ca.issue import issue_server
from ambient.ca.roots import load_authority, make_root
from ambient.control.serving_files import ServingFiles
from ambient.errors import InvalidInput, Unavailable


def write(folder: Path) -> None:
    now = datetime.now(UTC)
    certificate, key = make_root(now)
    files = {"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}
    issued, server_key = issue_server(load_authority(files, now), ["a.svc"], [], now, timedelta(hours=1))
    (folder / "tls.crt").write_text(issued.chain[0])
    (folder / "tls.key").write_text(server_key)


def test_what_is_there_now_is_served(tmp_path: Path) -> None:
    serials = []
    for _ in range(2):
        write(tmp_path)
        serials.append(ServingFiles(tmp_path).serving().serial)
    assert serials[0] != serials[1]


def test_a_missing_file_a_broken_one_and_a_foreign_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"tls\.crt"):
        ServingFiles(tmp_path).serving()
    write(tmp_path)
    good = (tmp_path / "tls.crt").read_text()
    write(tmp_path)
    (tmp_path / "tls.crt").write_text(good)
    with pytest.raises(InvalidInput, match=r"tls\.key: is not the key"):
        ServingFiles(tmp_path).serving()
    (tmp_path / "tls.crt").write_text("rubbish")
    with pytest.raises(InvalidInput, match=r"tls\.crt"):
        ServingFiles(tmp_path).serving()
