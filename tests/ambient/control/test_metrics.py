"""Metrics: istiod's names where it has them, and two control planes in one process that do not share numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from ambient.control.metrics import ControlMetrics


def test_names_that_dashboards_of_istiod_look_for_are_there() -> None:
    text = ControlMetrics().render().decode()
    for name in (
        "pilot_xds",
        "pilot_proxy_convergence_time_bucket",
        "citadel_server_csr_count 0.0",
        "citadel_server_success_cert_issuance_count 0.0",
        "citadel_server_authentication_failure_count 0.0",
        "citadel_server_root_cert_expiry_timestamp NaN",
        "citadel_server_root_cert_expiry_seconds NaN",
        "galley_validation_config_updates 0.0",
    ):
        assert f"\n{name}" in text


def test_the_end_of_the_authority_is_a_moment_and_the_seconds_until_then() -> None:
    metrics = ControlMetrics()
    metrics.authority(datetime.now(UTC) + timedelta(hours=1), 2)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert 3590 < families["citadel_server_root_cert_expiry_seconds"].samples[0].value <= 3600
    assert families["ambient_control_trusted_roots"].samples[0].value == 2


def test_registries_are_separate() -> None:
    first, second = ControlMetrics(), ControlMetrics()
    first.csrs.inc()
    assert b"\ncitadel_server_csr_count 1.0\n" in first.render()
    assert b"\ncitadel_server_csr_count 0.0\n" in second.render()


def test_the_exposition_is_well_formed() -> None:
    metrics = ControlMetrics()
    metrics.rejects.labels("Address").inc()
    metrics.denied.labels("discovery", "UNAUTHENTICATED").inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert families["pilot_total_xds_rejects"].type == "counter"
    assert families["ambient_control_refused_calls"].samples[0].value == 1.0
    assert not any(name.endswith("_created") for name in families)
