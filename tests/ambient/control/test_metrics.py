"""Metrics: istiod's names where it has them, and two control planes in one process that do not share numbers."""

from __future__ import annotations

from ambient.control.metrics import ControlMetrics


def test_names_that_dashboards_of_istiod_look_for_are_there() -> None:
    text = ControlMetrics().render().decode()
    for name in (
        "pilot_xds",
        "pilot_proxy_convergence_time_bucket",
        "citadel_server_csr_count_total",
        "citadel_server_success_cert_issuance_count_total",
        "citadel_server_authentication_failure_count_total",
        "citadel_server_root_cert_expiry_timestamp",
    ):
        assert f"\n{name}" in text


def test_registries_are_separate() -> None:
    first, second = ControlMetrics(), ControlMetrics()
    first.csrs.inc()
    assert b"citadel_server_csr_count_total 1.0" in first.render()
    assert b"citadel_server_csr_count_total 0.0" in second.render()
