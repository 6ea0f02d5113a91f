"""Settings of the control plane: its own variables, those of its neighbours, and misspelt ones."""

from __future__ import annotations

import pytest

from ambient.control.settings import read_control_settings
from ambient.errors import InvalidInput

NEEDED = {"AMBIENT_OBJECTS": "/o"}


def test_one_variable_is_enough() -> None:
    settings = read_control_settings(NEEDED)
    assert settings.xds_listen.port == 15012
    assert settings.http_listen.port == 15014
    assert "istiod.istio-system.svc" in settings.server_names
    assert settings.node_accounts == {"ambient-system/ztunnel"}
    assert not any(account.startswith("istio-system/") for account in settings.client_accounts)
    assert settings.network == ""


def test_our_certificate_names_our_service_wherever_we_are_installed() -> None:
    names = read_control_settings({**NEEDED, "POD_NAMESPACE": "mesh", "CLUSTER_DOMAIN": "example.org"}).own_names
    assert {"ambient-control.mesh.svc", "ambient-control.mesh.svc.example.org", "istiod.istio-system.svc"} <= names


def test_where_the_objects_are_has_to_be_said() -> None:
    with pytest.raises(InvalidInput, match="missing setting: AMBIENT_OBJECTS"):
        read_control_settings({})


def test_variables_of_other_processes_are_left_alone_and_misspelt_ones_refused() -> None:
    read_control_settings({**NEEDED, "AMBIENT_BPFFS": "/x", "HOME": "/root"})
    with pytest.raises(InvalidInput, match="unknown setting: AMBIENT_XDS_LISTN"):
        read_control_settings({**NEEDED, "AMBIENT_XDS_LISTN": ":1"})


@pytest.mark.parametrize("accounts", [",", "a/b,", ",a/b"])
def test_a_list_with_an_empty_entry_is_refused(accounts: str) -> None:
    with pytest.raises(InvalidInput, match="invalid setting: CA_TRUSTED_NODE_ACCOUNTS"):
        read_control_settings({**NEEDED, "CA_TRUSTED_NODE_ACCOUNTS": accounts})
