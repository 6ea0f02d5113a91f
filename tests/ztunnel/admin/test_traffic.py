"""Traffic metrics as text: the real ztunnel's lines come out the same, and denials carry exemplars when asked."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ambient.model.traffic import TRAFFIC
from ztunnel.admin.traffic import traffic_text
from ztunnel.director.tally import Line
from ztunnel.ipc.messages import Exemplar

GOLDEN = Path(__file__).parents[2] / "golden" / "ztunnel-metrics-loaded-n1.txt"


def parsed(text: str) -> list[object]:
    return list(text_string_to_metric_families(text + "# EOF\n"))  # type: ignore[no-untyped-call]


def denied(policy: str = "shop/only-web", *, exemplars: bool = True) -> list[tuple[str, dict[str, str], float]]:
    """Exemplars of one denied connection: metric, labels, time."""
    told = Exemplar(unix=1700000000.25, reason="no-allow-matched", policy=policy, trace_id="ab" * 16)
    lines = {tuple(f"v{n}" for n in range(len(TRAFFIC))): Line((0, 1, 1, 0, 0), told)}
    return [
        (sample.name, sample.exemplar.labels, float(sample.exemplar.timestamp))
        for family in parsed(traffic_text(lines, exemplars=exemplars))
        for sample in family.samples  # type: ignore[attr-defined]
        if sample.exemplar
    ]


def test_a_denial_names_its_policy_in_the_exemplar_of_its_failure_counter() -> None:
    wanted = {"policy": "shop/only-web", "trace_id": "ab" * 16, "reason": "no-allow-matched"}
    assert denied() == [("istio_tcp_connections_failed_total", wanted, 1700000000.25)]
    assert denied(exemplars=False) == []


def test_an_exemplar_keeps_within_the_128_characters_of_openmetrics() -> None:
    ((_, labels, _),) = denied("ns/" + "p" * 80)
    assert labels["policy"].startswith("ns/ppp")
    assert sum(len(name) + len(value) for name, value in labels.items()) <= 128
    assert "trace_id" not in labels
    ((_, labels, _),) = denied("ns/" + "p" * 200)
    assert labels == {"trace_id": "ab" * 16, "reason": "no-allow-matched"}


def test_label_values_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    family = parsed(traffic_text({("source", odd): Line((1, 0, 0, 0, 0))}, exemplars=False))[0]
    assert family.samples[0].labels == {"reporter": "source", "source_workload": odd}  # type: ignore[attr-defined]


def test_every_traffic_series_of_a_real_ztunnel_comes_out_as_the_same_text() -> None:
    theirs = [line for line in GOLDEN.read_text().splitlines() if line.startswith("istio_tcp_") and "flags" in line]
    kinds = ("opened", "closed", "failed", "received", "sent")
    rows: dict[tuple[str, ...], list[int]] = {}
    for line in theirs:
        head, _, value = line.rpartition(" ")
        labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', head))
        assert tuple(labels) == TRAFFIC
        which = next(n for n, kind in enumerate(kinds) if kind in head.partition("{")[0])
        rows.setdefault(tuple(labels.values()), [0] * 5)[which] = int(value)
    made = {labels: Line((v[0], v[1], v[2], v[3], v[4])) for labels, v in rows.items()}
    assert theirs
    assert set(theirs) <= set(traffic_text(made, exemplars=False).splitlines())


def test_under_a_flag_only_what_counted_is_there_and_without_one_everything_but_failures() -> None:
    clean = tuple("-" if name == "response_flags" else "x" for name in TRAFFIC)
    denied = tuple("DENY" if name == "response_flags" else "x" for name in TRAFFIC)
    text = traffic_text({clean: Line((1, 0, 0, 0, 0)), denied: Line((0, 2, 2, 0, 0))}, exemplars=False)
    found = [
        (line.partition("{")[0].removeprefix("istio_tcp_"), "DENY" in line, line.rpartition(" ")[2])
        for line in text.splitlines()
        if "{" in line
    ]
    assert found == [
        ("connections_opened_total", False, "1"),
        ("connections_closed_total", False, "0"),
        ("connections_closed_total", True, "2"),
        ("connections_failed_total", True, "2"),
        ("received_bytes_total", False, "0"),
        ("sent_bytes_total", False, "0"),
    ]


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=150), st.text(st.characters(exclude_categories=["Cs"]))
)
def test_whatever_is_in_a_label_or_a_policys_name_the_text_can_be_read(policy: str, label: str) -> None:
    told = Exemplar(unix=1700000000.25, reason="denied-by", policy=policy, trace_id="ab" * 16)
    text = traffic_text({("source", label): Line((0, 1, 1, 0, 0), told)}, exemplars=True)
    (failed,) = [sample for family in parsed(text) for sample in family.samples if sample.name.endswith("failed_total")]  # type: ignore[attr-defined]
    assert failed.labels["source_workload"] == label
    assert failed.exemplar.labels.get("policy", policy) == policy
