"""Workers know of each other who has fewer tunnels, and share new ones evenly."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.tunnel import application, echo, run, talk, until, world
from ztunnel.ipc.messages import Drain, PodDown
from ztunnel.proxy.balance import Balance


def both(folder: Path, slack: float = 0.0) -> tuple[Balance, Balance]:
    """Two workers that share a file and accept."""
    made = Balance(str(folder / "counts"), 0, slack), Balance(str(folder / "counts"), 1, slack)
    for one in made:
        one.join()
    return made


def test_who_has_more_is_ahead_until_it_has_no_more(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    assert not one.ahead()
    one.add(1)
    assert one.ahead()
    assert not two.ahead()
    two.add(1)
    assert not one.ahead()
    one.add(2)
    one.add(-2)
    assert not one.ahead()


def test_who_is_not_there_holds_up_nobody(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    one.add(1)
    two.leave()
    assert not one.ahead()
    two.add(1)
    two.add(-1)
    assert not one.ahead()
    again = Balance(str(tmp_path / "counts"), 1)
    assert not one.ahead()
    again.join()
    assert one.ahead()
    assert not again.ahead()


def test_a_part_of_what_another_has_is_no_lead(tmp_path: Path) -> None:
    one, two = both(tmp_path, slack=0.25)
    one.add(1)
    assert one.ahead()
    one.add(8)
    two.add(7)
    assert not one.ahead()
    one.add(1)
    assert one.ahead()


def test_a_worker_that_two_who_began_at_once_have_overlooked_is_seen_with_its_next(tmp_path: Path) -> None:
    one, two = both(tmp_path)
    one._numbers[0] = 1  # as the lower of the two left it
    two.add(1)
    one.add(3)
    assert one.ahead()


def test_without_a_file_a_worker_is_alone() -> None:
    for path in ("", "/nowhere/at/all"):
        one, two = Balance(path, 0), Balance(path, 1)
        one.join()
        two.join()
        one.add(1)
        assert not one.ahead()
        two.leave()


def test_the_tunnels_of_two_workers_end_in_two_workers() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            clients = [await here.pod(f"client{number}", f"127.0.0.{20 + number}") for number in range(6)]
            for client in clients:
                here.route(client, server, port)
                assert await talk(client.outbound) == b"hello"
            inbound = [sum(len(one.pod.tunnels) for one in worker._pods.values()) for worker in here.workers]
            assert sorted(inbound) == [3, 3]
            await until(lambda: all(worker.recorder.open_count == 0 for worker in here.workers))

    run(scenario)


def test_only_a_worker_that_accepts_is_let_go_first() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here:
            one, two = here.workers

            def there() -> list[list[int]]:
                return [list(balance._numbers[1:3]) for balance in (one.plane.balance, one.plane.outgoing)]

            assert there() == [[0, 0]] * 2
            client = await here.pod("client", "127.0.0.20")
            await until(lambda: there() == [[1, 1]] * 2)
            here.director.send(PodDown(uid=client.uid))
            await until(lambda: there() == [[0, 0]] * 2)
            await here.pod("server", "127.0.0.12")
            await until(lambda: there() == [[1, 1]] * 2)
            two._drain(Drain(deadline_s=20))
            assert there() == [[1, 0]] * 2
            one.close()
            assert there() == [[0, 0]] * 2

    run(scenario)


def test_of_a_crowd_of_connections_the_worker_that_has_fewer_takes_more() -> None:
    async def scenario() -> None:
        async with world(workers=2) as here, application("127.0.0.12", echo) as port:
            server = await here.pod("server", "127.0.0.12")
            client = await here.pod("client", "127.0.0.20")
            here.route(client, server, port)

            def taken() -> list[int]:
                return [sum(len(one.pod.outbound) for one in worker._pods.values()) for worker in here.workers]

            for _ in range(2):
                here.workers[0].plane.outgoing.add(16)  # as if it had so many
                crowd = [socket.create_connection(client.outbound) for _ in range(32)]
                await until(lambda: sum(taken()) == 32)
                assert taken()[1] >= 20  # 24 were even, and a quarter is no lead
                for one in crowd:
                    one.close()
                await until(lambda: sum(taken()) == 0)
                here.workers[0].plane.outgoing.add(-16)

    run(scenario)
