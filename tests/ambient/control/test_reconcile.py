"""From objects to what is served: what counts as news, who may have certificates, and what is said about objects."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from ambient.control.derive import Derived
from ambient.kube.objects import Records
from ambient.model.workload import Service
from ambient.xds.codec import ADDRESS_TYPE
from tests.support.control import ControlBench, until

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop}}
spec: {{nodeName: n1, containers: [{{name: c, image: i}}]}}
status: {{podIPs: [{{ip: 10.0.0.1}}]}}
---
"""
BAD_POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: l7, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
---
"""


def status(bench: ControlBench, key: str) -> dict[str, object]:
    name = key.replace("/", ".") + ".json"
    path = bench.root / "objects" / "status" / "control" / name
    return json.loads(path.read_text()) if path.exists() else {}


def test_conditions_are_written_and_taken_back_with_their_object(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(BAD_POLICY)
            key = "AuthorizationPolicy/shop/l7"
            await until(lambda: status(bench, key).get("conditions"))
            bench.folder.delete([key])
            await until(lambda: not status(bench, key))

    asyncio.run(scenario())


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec: {{hosts: [{name}.example.com], resolution: DNS, ports: [{{number: 443, name: tls}}]}}
---
"""


def test_an_entry_is_given_addresses_that_are_served_and_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:

            def served() -> list[str]:
                found = bench.plane.catalogue.records(ADDRESS_TYPE).get("shop/api.example.com")
                return [str(vip) for vip in found.addresses] if isinstance(found, Service) else []

            bench.apply(ENTRY.format(name="api"))
            await until(lambda: served() == ["/240.240.0.1", "/2001:2::1"])
            revision = bench.apply(ENTRY.format(name="aaa"))
            await until(lambda: bench.plane.reconciler.observed == revision)
            assert served() == ["/240.240.0.1", "/2001:2::1"]

    asyncio.run(scenario())


def test_what_we_wrote_ourselves_is_no_news(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            revision = bench.apply(BAD_POLICY)
            await until(lambda: bench.plane.reconciler.observed == revision)
            await until(lambda: bench.folder.records().writers["control"].observed == revision)
            derived = metric(bench, "ambient_control_derive_seconds_count")
            await bench.plane.reconciler.step(bench.folder.records())
            assert metric(bench, "ambient_control_derive_seconds_count") == derived

    asyncio.run(scenario())


def test_what_we_wrote_ourselves_counts_as_read(tmp_path: Path) -> None:
    """Whoever waits for everything that was said to be acted upon does not wait for ever."""

    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(BAD_POLICY)
            await until(lambda: status(bench, "AuthorizationPolicy/shop/l7").get("conditions"))
            await until(
                lambda: bench.plane.reconciler.writers["control"] == bench.folder.records().writers["control"].status
            )

    asyncio.run(scenario())


def metric(bench: ControlBench, name: str) -> float:
    lines = bench.plane.metrics.render().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_an_object_that_cannot_be_read_is_counted_and_the_others_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            (bench.root / "objects" / "objects" / "Pod.shop.bad.json").write_text("{")
            bench.apply(POD.format(name="a"))
            await until(lambda: "Kubernetes//Pod/shop/a" in bench.plane.catalogue.resources(ADDRESS_TYPE))
            assert metric(bench, "ambient_control_refused_objects") == 1.0

    asyncio.run(scenario())


def test_services_without_the_waypoint_that_they_ask_for_are_counted(tmp_path: Path) -> None:
    service = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop, labels: {istio.io/use-waypoint: %s}}
spec: {clusterIP: 10.96.0.%d, ports: [{port: 80}]}
"""

    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply("---".join((service % ("one", "gone", 1), service % ("two", "none", 2))))
            await until(lambda: metric(bench, "ambient_control_without_waypoint") == 1.0)

    asyncio.run(scenario())


def test_a_folder_that_is_gone_takes_nothing_out_of_the_mesh(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(POD.format(name="a"))
            await until(lambda: "Kubernetes//Pod/shop/a" in bench.plane.catalogue.resources(ADDRESS_TYPE))
            await bench.plane.reconciler.step(Records())
            assert bench.plane.reconciler.failure
            assert "Kubernetes//Pod/shop/a" in bench.plane.catalogue.resources(ADDRESS_TYPE)
            await bench.plane.reconciler.step(bench.folder.records())
            assert not bench.plane.reconciler.failure

    asyncio.run(scenario())


def test_a_defect_in_deriving_leaves_what_is_served_and_shows(tmp_path: Path) -> None:
    def broken(records: Records) -> Derived:
        raise ZeroDivisionError("defect")

    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            first = bench.apply(POD.format(name="a"))
            await until(lambda: bench.plane.reconciler.observed == first)
            derive, bench.plane.reconciler._derive = bench.plane.reconciler._derive, broken
            bench.apply(POD.format(name="b"))
            await until(lambda: bench.plane.reconciler.failure)
            assert bench.plane.reconciler.observed == first
            assert "Kubernetes//Pod/shop/a" in bench.plane.catalogue.resources(ADDRESS_TYPE)
            status, body = await bench.get("/ready")
            assert status == 503
            assert b"ZeroDivisionError" in body
            bench.plane.reconciler._derive = derive
            bench.apply(POD.format(name="c"))
            await until(lambda: "Kubernetes//Pod/shop/c" in bench.plane.catalogue.resources(ADDRESS_TYPE))
            assert (await bench.get("/ready"))[0] == 200

    asyncio.run(scenario())
