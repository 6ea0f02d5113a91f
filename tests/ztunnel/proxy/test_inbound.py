"""Who may come in through 15008, and what everybody else is told."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_network
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from ambient.model.outcome import PeerLabels
from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from tests.support.h2_peer import CLIENT, Peer
from tests.support.tunnel import application, conversation, echo, pair, run, talk, until, world
from tests.support.tunnel_certs import Authority
from ztunnel.ipc.messages import Settings
from ztunnel.tuning import Tuning


def policy(action: Action, name: str = "p", **fields: object) -> Authorization:
    rules = (((Match(**fields),),),) if fields else ()  # type: ignore[arg-type]
    return Authorization(name=name, namespace="test", scope=PolicyScope.NAMESPACE, action=action, rules=rules)


def principal(value: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringMatchKind.EXACT, value),)


def test_a_stranger_with_a_good_certificate_gets_a_tunnel_and_our_baggage() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod)
            await peer.connect()
            status, fields = await peer.ask(f"127.0.0.12:{port}", traceparent="00-1-1-00")
            assert status == 200
            assert fields[b"baggage"] == pod.policy.baggage.encode()
            peer.h2.send_data(1, b"hi", end_stream=True)
            peer.writer.write(peer.h2.data_to_send())
            while not any(isinstance(event, h2.events.StreamEnded) for event in peer.events):
                await peer.pump()
            assert b"".join(e.data for e in peer.events if isinstance(e, h2.events.DataReceived)) == b"hi"
            peer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("fields", "namespace"),
    [
        ({"x-forwarded-network": "east"}, "said"),
        ({"x-forwarded-network": "West"}, "looked-up"),
        ({}, "looked-up"),
    ],
)
def test_baggage_tells_who_it_is_only_of_what_says_that_it_came_from_another_network(
    fields: dict[str, str], namespace: str
) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            here.director.peers["127.0.0.1"] = PeerLabels(pod="gateway", namespace="looked-up")
            pod = await here.pod("server", "127.0.0.12")
            here.director.send(Settings(node="n1", trust_domain="cluster.local", cluster_id="c", network="west"))
            peer = Peer(here, pod)
            await peer.connect()
            status, _ = await peer.ask(f"127.0.0.12:{port}", baggage="k8s.namespace.name=said", **fields)
            assert status == 200
            peer.close()
            await until(lambda: "connection complete" in here.log())
            line = next(line for line in here.log().splitlines() if "connection complete" in line)
            assert f'src.namespace="{namespace}"' in line
            assert f'src.identity="{CLIENT}"' in line

    run(scenario)


@pytest.mark.parametrize(("ended", "seen"), [(True, ["data", "end"]), (False, ["data", "reset"])])
def test_a_stream_reset_without_an_error_is_an_end_only_after_the_peer_had_ended_it(
    ended: bool, seen: list[str]
) -> None:
    heard: list[str] = []

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100):
                heard.append("data")
            heard.append("end")
        except ConnectionResetError:
            heard.append("reset")
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", watch) as port:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            peer.h2.send_data(1, b"half of it", end_stream=ended)
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: heard == ["data"] or len(heard) == 2)
            peer.h2.reset_stream(1, h2.errors.ErrorCodes.NO_ERROR)
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: len(heard) == 2)
            assert heard == seen
            await until(lambda: here.workers[0].recorder.open_count == 0)
            peer.close()

    run(scenario)


def test_an_answer_says_nothing_of_us_when_it_is_set_so() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            quiet = Tuning(response_baggage=False)
            here.director.send(Settings(node="n1", trust_domain="cluster.local", cluster_id="c", tuning=quiet))
            await until(lambda: here.workers[0].plane.settings.tuning == quiet)
            peer = Peer(here, pod)
            await peer.connect()
            status, fields = await peer.ask(f"127.0.0.12:{port}")
            assert status == 200
            assert b"baggage" not in fields
            peer.close()

    run(scenario)


def test_data_that_comes_before_the_answer_reaches_the_application() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod)
            await peer.connect()
            peer.h2.send_headers(1, [(":method", "CONNECT"), (":authority", f"127.0.0.12:{port}")])
            peer.h2.send_data(1, b"early", end_stream=True)
            peer.writer.write(peer.h2.data_to_send())
            while not any(isinstance(event, h2.events.StreamEnded) for event in peer.events):
                await peer.pump()
            assert b"".join(e.data for e in peer.events if isinstance(e, h2.events.DataReceived)) == b"early"
            peer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("authority", "method", "status"),
    [
        ("127.0.0.13:80", "CONNECT", 400),
        ("nonsense", "CONNECT", 400),
        ("127.0.0.12:99999", "CONNECT", 400),
        ("a b:80", "CONNECT", 400),
        ("127.0.0.12:80", "GET", 400),
        ("127.0.0.12:15001", "CONNECT", 503),
        ("127.0.0.12:15006", "CONNECT", 503),
        ("127.0.0.12:15008", "CONNECT", 503),
        ("127.0.0.12:1", "CONNECT", 503),
        ("other.test.svc.cluster.local:80", "CONNECT", 503),
        ("server.test.svc.cluster.local:81", "CONNECT", 503),
    ],
)
def test_requests_that_are_not_a_tunnel_to_this_pod_are_refused(authority: str, method: str, status: int) -> None:
    async def scenario() -> None:
        async with world() as here:
            pod = await here.pod("server", "127.0.0.12")
            here.update(pod, service_ports=(("server.test.svc.cluster.local", 80, 8080),))
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(authority, method))[0] == status
            assert here.workers[0].recorder.open_count == 0
            peer.close()

    run(scenario)


def test_a_host_name_means_this_pods_port_of_that_service() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            here.update(pod, service_ports=(("server.test.svc.cluster.local", 80, port),))
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask("server.test.svc.cluster.local:80"))[0] == 200
            peer.close()

    run(scenario)


IMPOSTORS = {
    "another trust domain": ("spiffe://evil.example/ns/test/sa/client",),
    "two identities": (CLIENT, "spiffe://cluster.local/ns/test/sa/other"),
    "no identity": (),
    "not a SPIFFE name": ("https://cluster.local/ns/test/sa/client",),
    "too many components": (f"{CLIENT}/more",),
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_a_certificate_that_is_no_clear_identity_of_our_trust_domain_gets_nothing(impostor: str) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod, IMPOSTORS[impostor])
            await peer.connect()
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await peer.ask(f"127.0.0.12:{port}")
            assert "connection failed" in here.log()
            peer.close()

    run(scenario)


def test_a_certificate_of_another_authority_or_none_gets_nothing() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            path = Path(here.folder) / "foreign.pem"
            path.write_bytes(Authority("foreign").leaf([CLIENT]))
            foreign, nobody, other_alpn = Peer(here, pod), Peer(here, pod), Peer(here, pod, alpn="http/1.1")
            foreign.context.load_cert_chain(path)
            nobody.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            nobody.context.check_hostname = False
            nobody.context.load_verify_locations(cadata=here.authority.roots)
            for peer in (foreign, nobody, other_alpn):
                with pytest.raises((ConnectionError, ssl.SSLError)):
                    await connect_and_ask(peer, f"127.0.0.12:{port}")

    run(scenario)


async def connect_and_ask(peer: Peer, authority: str) -> None:
    await peer.connect()
    await peer.ask(authority)


def test_policy_decides_by_identity_and_port_and_the_denial_is_named() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            allowed = principal("cluster.local/ns/test/sa/client")
            here.update(server, policies=(policy(Action.ALLOW, "may", principals=allowed, destination_ports=(port,)),))
            assert await talk(client.outbound) == b"hello"
            here.update(server, policies=(policy(Action.DENY, "never", principals=allowed),))
            assert await talk(client.outbound) == b""
            await until(lambda: here.log().count("connection complete") == 4)
            log = here.log()
            assert 'error="http status: 401 Unauthorized"' in log
            assert 'error="connection closed due to policy rejection: explicitly denied by: test/never"' in log
            assert 'policy="test/never"' in log

    run(scenario)


def test_a_policy_that_was_not_received_refuses() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            here.update(server, missing=("test/not-here",))
            assert await talk(client.outbound) == b""
            assert "policy not received: test/not-here" in here.log()

    run(scenario)


def test_a_pod_behind_a_waypoint_takes_nobody_else() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            here.update(server, waypoint_principals=("spiffe://cluster.local/ns/test/sa/waypoint",))
            assert await talk(client.outbound) == b""
            await until(lambda: 'reason="not-its-waypoint"' in here.log())
            here.update(server, waypoint_principals=(client.identity,))
            assert await talk(client.outbound) == b"hello"

    run(scenario)


def test_an_unknown_workload_makes_streams_wait_until_it_is_known() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            here.update(server, known=False)
            waiting = asyncio.create_task(talk(client.outbound))
            await until(lambda: len(here.workers[0]._pods[server.uid].pod._known_waiters) == 1)
            here.update(server, known=True, policies=(policy(Action.ALLOW, source_ips=(ip_network("127.0.0.0/8"),)),))
            assert await waiting == b"hello"

    run(scenario)


def test_a_change_of_policy_cuts_live_streams_and_leaves_the_others() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            friend = await here.pod("friend", "127.0.0.13")
            here.route(friend, server, port)
            cut, stays = await conversation(client.outbound), await conversation(friend.outbound)
            here.update(
                server, policies=(policy(Action.DENY, principals=principal("cluster.local/ns/test/sa/client")),)
            )
            with pytest.raises(ConnectionResetError):
                await cut[0].read()
            stays[1].write(b"2")
            assert await stays[0].readexactly(1) == b"2"
            assert here.counter("connections_cut_by_policy") == 1
            await until(lambda: "connection closed due to policy change" in here.log())
            for _, writer in (cut, stays):
                writer.close()

    run(scenario)


def test_sabotage_without_the_second_judgement_the_stream_would_live_on() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            here.workers[0]._pods[server.uid].pod.live._live.clear()
            here.update(
                server, policies=(policy(Action.DENY, principals=principal("cluster.local/ns/test/sa/client")),)
            )
            assert await talk(client.outbound) == b""
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            writer.close()

    run(scenario)


def test_no_certificate_yet_makes_a_peer_wait_until_it_comes() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12", certificate=False)
            peer = Peer(here, pod)
            connecting = asyncio.create_task(peer.connect())
            await until(lambda: bool(here.workers[0].plane.wallet._waiting))
            here.certificate(pod.identity)
            await connecting
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            peer.close()

    run(scenario)
