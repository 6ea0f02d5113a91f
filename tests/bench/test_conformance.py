"""What a run of the conformance suite says is read as it is meant: above all, nothing that failed counts as passed."""

from __future__ import annotations

import json
from typing import Final

import pytest
import yaml

from tests.support.campaign_record import ROOT
from tests.support.conformance import PROFILES, UNCLAIMED, Profile, read_outcome, read_tests, recorded

REPORTS: Final = ROOT / "docs" / "reports"

LOG = """\
=== RUN   Conformance/MeshBasic
    pod.go:123: 2026-11-22T04:00:00Z: Got resp --- PASS: Conformance/MeshPorts (0.00s)
=== RUN   Conformance/MeshConsumerRoute
    conformance.go:59: Skipping MeshConsumerRoute: suite does not support MeshConsumerRoute
--- FAIL: Conformance (9.10s)
    --- PASS: Conformance/MeshBasic (0.32s)
        --- PASS: Conformance/MeshBasic/0_request_to_'echo/' (0.30s)
    --- SKIP: Conformance/MeshConsumerRoute (0.00s)
    --- FAIL: Conformance/MeshFrontend (30.5s)
        --- PASS: Conformance/MeshFrontend/Send_to_service (0.20s)
        --- FAIL: Conformance/MeshFrontend/Send_to_pod_IP (30.0s)
"""
TESTS = ("MeshBasic", "MeshConsumerRoute", "MeshFrontend", "MeshPorts")


def test_each_test_of_a_run_has_passed_failed_or_been_skipped_for_a_reason() -> None:
    found = read_outcome(LOG.splitlines(), TESTS[:3])
    assert found.passed == ["MeshBasic"]
    assert found.failed == {"MeshFrontend": ["Send_to_pod_IP"]}
    assert found.skipped == {"MeshConsumerRoute": "suite does not support MeshConsumerRoute"}


def test_a_test_that_the_run_never_came_to_has_failed() -> None:
    assert read_outcome(LOG.splitlines(), TESTS).failed["MeshPorts"] == ["the run ended before it"]
    assert sorted(read_outcome([], TESTS).failed) == sorted(TESTS)


def test_a_profile_has_the_tests_of_its_features_and_no_others() -> None:
    told = read_tests(
        "MeshBasic  [Mesh]\nMeshWeight ! [Mesh GRPCRoute]\nMeshSplit  [Mesh HTTPRoute]\nClass  [Gateway]\n"
    )
    assert (told["MeshBasic"], told["MeshWeight"]) == (("Mesh",), ("Mesh", "GRPCRoute"))
    of = {name: [one for one, features in told.items() if each.concerns(features)] for name, each in PROFILES.items()}
    assert of == {
        "mesh-http": ["MeshBasic", "MeshSplit"],
        "mesh-grpc": ["MeshBasic", "MeshWeight"],
        "gateway-http": ["Class"],
        "gateway-grpc": ["Class"],
    }


def test_what_is_kept_says_why_a_test_was_not_run() -> None:
    kept = recorded(read_outcome(LOG.splitlines(), TESTS), PROFILES["mesh-http"])
    assert kept["profile"] == "MESH-HTTP"
    ours = Profile("MESH-HTTP", (), frozenset(), refused={"MeshConsumerRoute": "as we like it"})
    assert recorded(read_outcome(LOG.splitlines(), TESTS), ours)["skipped"] == {"MeshConsumerRoute": "as we like it"}
    assert kept["skipped"] == {"MeshConsumerRoute": "suite does not support MeshConsumerRoute"}
    assert list(kept["failed"]) == ["MeshFrontend", "MeshPorts"]
    unclaimed = [line.replace("MeshConsumerRoute", "ListenerSet") for line in LOG.splitlines()]
    skipped = recorded(read_outcome(unclaimed, ["ListenerSet"]), PROFILES["mesh-http"])["skipped"]
    assert skipped == {"ListenerSet": f"ListenerSet: {UNCLAIMED['ListenerSet']}"}


@pytest.mark.parametrize("name", PROFILES)
def test_in_the_record_nothing_has_failed_and_what_was_not_run_has_its_reason(name: str) -> None:
    kept, profile = json.loads((REPORTS / "conformance.json").read_text())[name], PROFILES[name]
    assert kept["failed"] == {}
    given = {*profile.refused.values(), *(f"{feature}: {why}" for feature, why in UNCLAIMED.items())}
    assert set(kept["skipped"].values()) <= given
    document = (ROOT / "docs" / "conformance.md").read_text()
    assert [one for one in (*UNCLAIMED, *profile.refused) if one not in document] == []


@pytest.mark.parametrize("name", PROFILES)
def test_the_suites_report_says_no_more_than_the_record(name: str) -> None:
    kept, profile = json.loads((REPORTS / "conformance.json").read_text())[name], PROFILES[name]
    report = yaml.safe_load((REPORTS / f"conformance-{name}.yaml").read_text())
    (said,) = report["profiles"]
    assert said["name"] == profile.title
    parts = [said["core"], *([said["extended"]] if "extended" in said else [])]
    assert {part["result"] for part in parts} == {"success"}
    counted = sum(part["statistics"]["Passed"] for part in parts)
    # Some tests that are run the suite counts in no profile.
    assert counted == len(kept["passed"]) if name == "gateway-http" else 0 < counted <= len(kept["passed"])
    assert set(report.get("succeededProvisionalTests", ())) <= set(kept["passed"])
    extended = said.get("extended", {})
    assert set(extended.get("supportedFeatures", ())) <= set(profile.extended)
    # Those that no test of the profile is about are claimed in another.
    claimed = {feature for each in PROFILES.values() for feature in each.extended}
    assert set(extended.get("unsupportedFeatures", ())) <= {*UNCLAIMED, *claimed}
    document = (ROOT / "docs" / "conformance.md").read_text()
    assert [one for one in extended.get("supportedFeatures", ()) if one not in document] == []
