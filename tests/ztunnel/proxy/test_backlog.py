"""The queue of octets: nothing lost, doubled or reordered, and every chunk given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.proxy.backlog import CHUNK, STUCK_S, Backlog, Chunks, CountedChunks


class Counted(Chunks):
    """Counts what is out."""

    def __init__(self) -> None:
        super().__init__()
        self.out = 0

    def take(self) -> memoryview:
        self.out += 1
        return super().take()

    def give(self, chunk: memoryview) -> None:
        self.out -= 1
        super().give(chunk)


SIZES = st.one_of(st.integers(0, 50), st.integers(CHUNK - 2, CHUNK + 2), st.integers(0, 3 * CHUNK))


@given(st.lists(st.tuples(st.booleans(), SIZES), max_size=30))
def test_octets_leave_in_the_order_they_came_and_chunks_with_them(steps: list[tuple[bool, int]]) -> None:
    source = Counted()
    backlog, model, number = Backlog(source), bytearray(), 0
    for append, size in steps:
        if append:
            number += 1
            data = (number.to_bytes(2, "big") + bytes(range(254))) * (size // 256 + 1)
            backlog.append(memoryview(data)[:size])
            model += data[:size]
        else:
            head = b"".join(backlog.head())
            assert head == model[: len(head)]
            assert bool(head) == bool(model)
            count = min(size, len(head))
            backlog.drop(count)
            del model[:count]
        assert backlog.size == len(model)
        assert source.out <= len(model) // CHUNK + 2
    backlog.clear()
    assert (backlog.size, source.out, backlog.head()) == (0, 0, [])


def test_only_a_few_chunks_are_kept() -> None:
    source = Chunks()
    chunks = [source.take() for _ in range(20)]
    for chunk in chunks:
        source.give(chunk)
    kept = {id(chunk) for chunk in chunks}
    assert sum(id(source.take()) in kept for _ in range(20)) == 8


def test_a_backlog_that_is_used_again_begins_with_a_whole_chunk() -> None:
    source = Counted()
    backlog = Backlog(source)
    for _ in range(100):
        backlog.append(b"x" * 100_000)
        backlog.drop(100_000)
    backlog.append(b"y" * CHUNK)
    assert source.out == 1


class Idle:
    """Has octets waiting, and nothing to end."""

    def give_way(self) -> None:
        raise AssertionError


def test_who_is_stuck_longest_gives_way_first_and_whoever_moved_lately_never() -> None:
    now = [0.0]
    chunks = CountedChunks(Chunks(), lambda _: None, lambda: True, lambda: now[0])
    slow, stuck, late, gone = Idle(), Idle(), Idle(), Idle()
    for holder in (gone, slow, stuck):
        chunks.moved(holder)
    now[0] = 5.0
    chunks.moved(slow)
    chunks.moved(late)
    chunks.emptied(gone)
    now[0] = STUCK_S
    assert chunks.stuck() is None
    now[0] += 1
    assert chunks.stuck() is stuck
    chunks.emptied(stuck)
    assert chunks.stuck() is None
    now[0] += 5
    assert chunks.stuck() is slow
    for holder in (slow, late, slow):
        chunks.emptied(holder)
    assert chunks.stuck() is None
