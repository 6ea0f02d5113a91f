"""What a turn gathers: one piece to encrypt, in order, never too little room, memory only while there is something."""

from __future__ import annotations

from ztunnel.proxy.backlog import Chunks
from ztunnel.proxy.gathered import FULL, LEAST, Gathered


class Turn:
    """Notes what was encrypted and how often the end of the turn was asked for."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.asked = 0
        self.chunks = Chunks()
        self.gathered = Gathered(self.chunks, lambda data: self.pieces.append(bytes(data)), self._soon)

    def _soon(self) -> None:
        self.asked += 1


def test_what_was_put_and_written_in_a_turn_is_encrypted_in_one_piece() -> None:
    turn = Turn()
    turn.gathered.write(b"one ")
    turn.gathered.space()[:4] = b"two "
    turn.gathered.put(4)
    turn.gathered.write(memoryview(b"three"))
    assert not turn.pieces
    assert turn.asked == 1
    turn.gathered.seal()
    turn.gathered.seal()
    assert turn.pieces == [b"one two three"]
    turn.gathered.write(b"next turn")
    assert turn.asked == 2


def test_there_is_always_room_and_octets_keep_their_order() -> None:
    turn = Turn()
    expected = bytearray()
    for number in range(100):
        space = turn.gathered.space()
        assert len(space) >= LEAST
        size = min(len(space), 1_000 * number)
        space[:size] = bytes([number]) * size
        turn.gathered.put(size)
        expected += bytes([number]) * size
    large = bytes(range(256)) * 4_096
    turn.gathered.write(large)
    turn.gathered.seal()
    assert b"".join(turn.pieces) == bytes(expected) + large
    assert max(map(len, turn.pieces)) <= FULL


def test_space_that_was_not_used_costs_nothing() -> None:
    turn = Turn()
    first = turn.gathered.space()
    turn.gathered.seal()
    assert not turn.pieces
    assert turn.chunks.take().obj is first.obj
