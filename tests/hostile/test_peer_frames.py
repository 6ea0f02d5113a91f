"""Peers with a good certificate that break HTTP/2 or a limit: one rule each, answered as that rule is answered.

GOAWAY carries the words of the rule that was broken, so a row cannot pass because of another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, PATIENCE_S, connect, data, headers
from tests.support.hostile_rows import ENDED, RESET
from tests.support.lab import until
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code

pytestmark = pytest.mark.usefixtures("bystander")


@pytest.fixture(scope="module")
def counted(place: Arena) -> Iterator[dict[str, int]]:
    """How often each reason must have moved; compared when all peers have had their turn."""
    before, expected = place.metrics(), dict[str, int]()
    yield expected

    def moved() -> bool:
        now = place.metrics()
        return all(
            now.get(_metric(reason), 0) - before.get(_metric(reason), 0) >= times for reason, times in expected.items()
        )

    until(f"reasons moved: {expected}", moved, 5)


def _metric(reason: str) -> str:
    return f'ambient_hbone_violations_total{{reason="{reason}"}}'


@pytest.mark.parametrize("name", ENDED)
def test_the_connection_ends_of_a_peer_that(place: Arena, counted: dict[str, int], note: Note, name: str) -> None:
    peer = ENDED[name]
    with place.wire() as wire:
        wire.send(peer.says(place.authority.encode()))
        heard = wire.listen(PATIENCE_S)
    assert heard.goaway is not None, heard
    assert heard.goaway[0] == peer.code, heard.goaway
    assert peer.words in heard.goaway[1]
    assert heard.closed
    counted[peer.reason] = counted.get(peer.reason, 0) + 1
    note(
        "tunnel: HTTP/2",
        peer.words,
        f"a peer that {name}",
        f"GOAWAY {peer.code.name}: {heard.goaway[1]}; {peer.reason}",
    )


@pytest.mark.parametrize("name", RESET)
def test_the_stream_ends_and_no_other_of_a_peer_that(
    place: Arena, counted: dict[str, int], note: Note, name: str
) -> None:
    peer = RESET[name]
    with place.wire() as wire:
        wire.send(peer.says(place.authority.encode()))
        heard = wire.listen(PATIENCE_S, enough=lambda heard: heard.reset(1) is not None)
        assert heard.reset(1) == peer.code, heard
        wire.send(headers(3, connect(place.authority)), data(3, b"GET /id HTTP/1.0\r\n\r\n", end=True))
        heard = wire.listen(PATIENCE_S, enough=lambda heard: b"200" in heard.data(3))
        assert heard.status(3) == 200
        assert heard.goaway is None
    counted[peer.reason] = counted.get(peer.reason, 0) + 1
    note("tunnel: HTTP/2", peer.reason, f"a peer that {name}", f"RST_STREAM {peer.code.name}; {peer.reason}")


def test_of_too_many_streams_those_beyond_the_limit_are_refused_and_may_be_tried_again(place: Arena) -> None:
    request = connect(place.authority)
    with place.wire() as wire:
        wire.send(HELLO, *(headers(n, request) for n in range(1, 2 * 210, 2)))
        refused = set(range(401, 419, 2))
        heard = wire.listen(PATIENCE_S, enough=lambda h: all(h.reset(n) is not None for n in refused))
        assert {heard.reset(n) for n in refused} == {Code.REFUSED_STREAM}
        heard = wire.listen(PATIENCE_S, enough=lambda h: len(h.of(frames.HEADERS)) >= 200)
        assert len(heard.of(frames.HEADERS)) == 200
        assert heard.goaway is None
