"""DNS messages against dnslib."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dnslib import AAAA, CNAME, EDNS0, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from ambient.errors import InvalidInput
from ambient.model.dns import (
    Found,
    answers_to,
    read_answer,
    read_query,
    with_id,
    write_answer,
    write_failure,
    write_query,
)


def query(name: str = "Srv.Test.svc.cluster.local", qtype: str = "A", *, edns: int = 0) -> bytes:
    record = DNSRecord.question(name, qtype)
    if edns:
        record.add_ar(EDNS0(udp_len=edns))
    packed: bytes = record.pack()
    return packed


def test_a_question_is_read_in_lower_case_and_echoed_as_it_was() -> None:
    read = read_query(query())
    assert (read.name, read.qtype, read.limit, read.extended) == ("srv.test.svc.cluster.local", 1, 512, False)
    answer = DNSRecord.parse(write_answer(read, ["10.0.0.1"]))
    assert str(answer.q.qname) == "Srv.Test.svc.cluster.local."
    assert answer.header.id == read.id
    assert (answer.header.aa, answer.header.ra, answer.header.rd) == (1, 1, 1)


def test_addresses_of_the_asked_family_are_answered_with_istios_ttl() -> None:
    mixed = ["10.0.0.1", "fd00::1", "10.0.0.2"]
    four = DNSRecord.parse(write_answer(read_query(query()), mixed))
    six = DNSRecord.parse(write_answer(read_query(query(qtype="AAAA")), mixed))
    assert [(str(rr.rdata), rr.ttl) for rr in four.rr] == [("10.0.0.1", 30), ("10.0.0.2", 30)]
    assert [str(rr.rdata) for rr in six.rr] == ["fd00::1"]
    none = DNSRecord.parse(write_answer(read_query(query()), []))
    assert (none.header.rcode, none.rr) == (0, [])


def test_a_completed_name_comes_as_a_cname() -> None:
    answer = DNSRecord.parse(write_answer(read_query(query("srv")), ["10.0.0.1"], "srv.test.svc.cluster.local"))
    assert [(str(rr.rname), QTYPE[rr.rtype], str(rr.rdata)) for rr in answer.rr] == [
        ("srv.", "CNAME", "srv.test.svc.cluster.local."),
        ("srv.test.svc.cluster.local.", "A", "10.0.0.1"),
    ]


def test_an_answer_over_the_limit_says_so_and_keeps_to_it() -> None:
    read = read_query(query())
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(100)]
    short = write_answer(read, many, limit=read.limit)
    assert len(short) <= 512
    assert DNSRecord.parse(short).header.tc == 1
    large = read_query(query(edns=4096))
    assert large.limit == 4096
    full = DNSRecord.parse(write_answer(large, many, limit=large.limit))
    assert (full.header.tc, len(full.rr), len(full.ar)) == (0, 100, 1)


def test_of_thousands_of_addresses_those_are_looked_at_that_find_room() -> None:
    looked_at: list[str] = []

    class Addresses(list[str]):
        def __iter__(self) -> Iterator[str]:
            for one in super().__iter__():
                looked_at.append(one)
                yield one

    many = Addresses(f"10.{n // 62_500}.{n // 250 % 250}.{n % 250}" for n in range(5_000))
    read = read_query(query())
    short = DNSRecord.parse(write_answer(read, many, limit=read.limit))
    assert short.header.tc == 1
    assert len(looked_at) == len(short.rr) + 1


def test_no_answer_is_longer_than_a_message_over_tcp_can_be() -> None:
    many = [f"10.{n // 62_500}.{n // 250 % 250}.{n % 250}" for n in range(5_000)]
    whole = write_answer(read_query(query()), many)
    assert 65_500 < len(whole) <= 65_535
    assert DNSRecord.parse(whole).header.tc == 1


def test_a_failure_says_servfail() -> None:
    assert DNSRecord.parse(write_failure(read_query(query()))).header.rcode == 2


MALFORMED = {
    "nothing": b"",
    "a header only": query()[:12],
    "a name cut short": query()[:20],
    "a question cut short": query()[:-1],
    "a response": DNSRecord(DNSHeader(qr=1), q=DNSQuestion("a.b")).pack(),
    "two questions": DNSRecord(DNSHeader(), questions=[DNSQuestion("a.b"), DNSQuestion("c.d")]).pack(),
    "an answer in a query": DNSRecord(DNSHeader(), q=DNSQuestion("a.b"), rr=[RR("a.b", rdata=A("1.2.3.4"))]).pack(),
    "another operation": DNSRecord(DNSHeader(opcode=4), q=DNSQuestion("a.b")).pack(),
    "a label of 64 letters": query()[:12] + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01",
    "a compressed name": query()[:12] + b"\xc0\x0c\0\x01\0\x01",
    "a name that never ends": query()[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\x01\0\x01",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_queries_are_refused(case: str) -> None:
    with pytest.raises(InvalidInput):
        read_query(MALFORMED[case])


@given(st.binary(max_size=100))
def test_any_octets_are_read_or_refused(data: bytes) -> None:
    try:
        read = read_query(data)
    except InvalidInput:
        return
    write_failure(read)


def test_names_that_no_host_has_are_not_asked_about() -> None:
    odd = query()[:12] + b"\x04a\0.b\x00\x00\x01\x00\x01"
    assert read_query(odd).name == ""


def test_only_the_answer_to_our_question_under_our_id_counts() -> None:
    read = read_query(query("a.b"))
    answer = DNSRecord(DNSHeader(id=77, qr=1), q=DNSQuestion("A.b"), rr=[RR("a.b", rdata=A("1.2.3.4"))]).pack()
    assert answers_to(read, 77, answer)
    assert not answers_to(read, 78, answer)
    assert not answers_to(read, 77, with_id(query("a.b"), 77))
    assert not answers_to(read, 77, DNSRecord(DNSHeader(id=77, qr=1), q=DNSQuestion("c.d")).pack())
    assert not answers_to(read, 77, DNSRecord(DNSHeader(id=77, qr=1), q=DNSQuestion("a.b", QTYPE.AAAA)).pack())


def test_the_records_we_write_are_the_ones_dnslib_would() -> None:
    read = read_query(query("a.b", "AAAA"))
    expected = DNSRecord(
        DNSHeader(id=read.id, qr=1, aa=1, ra=1, rd=1),
        q=DNSQuestion("a.b", QTYPE.AAAA),
        rr=[RR("a.b", QTYPE.AAAA, ttl=30, rdata=AAAA("fd00::1"))],
    )
    assert DNSRecord.parse(write_answer(read, ["fd00::1"])) == expected
    assert CNAME("x").label == "x."


def test_our_own_questions_are_questions() -> None:
    read = DNSRecord.parse(write_query("db.example", 28))
    assert (str(read.q.qname), read.q.qtype, read.header.rd) == ("db.example.", 28, 1)
    assert read_query(write_query("db.example.", 1)).name == "db.example"


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 60] * 5), "ümlaut.example"])
def test_what_is_no_host_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(InvalidInput):
        write_query(name, 1)


def answered(*records: RR, code: int = 0, truncated: bool = False) -> bytes:
    reply = DNSRecord.question("db.example").reply()
    reply.header.rcode = code
    reply.header.tc = int(truncated)
    for record in records:
        reply.add_answer(record)
    return bytes(reply.pack())


def test_addresses_are_read_behind_aliases_with_the_least_time_to_live() -> None:
    data = answered(
        RR("db.example", QTYPE.CNAME, rdata=CNAME("real.db.example"), ttl=3),
        RR("real.db.example", QTYPE.A, rdata=A("192.0.2.1"), ttl=60),
        RR("real.db.example", QTYPE.A, rdata=A("192.0.2.2"), ttl=50),
        RR("real.db.example", QTYPE.AAAA, rdata=AAAA("2001:db8::1"), ttl=70),
    )
    found = read_answer(data)
    assert [str(ip) for ip in found.addresses] == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert (found.ttl, found.truncated) == (50, False)


def test_a_name_that_does_not_exist_has_no_addresses() -> None:
    assert read_answer(answered(code=3)) == Found((), 0, False)
    assert read_answer(answered(truncated=True)).truncated


def test_failures_and_cut_answers_are_refused() -> None:
    with pytest.raises(InvalidInput):
        read_answer(answered(code=2))
    whole = answered(RR("db.example", QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
    for size in range(len(whole)):
        with pytest.raises(InvalidInput):
            read_answer(whole[:size])
    with pytest.raises(InvalidInput):
        read_answer(whole[:-6] + b"\0\3" + whole[-4:-1])


@given(st.binary(max_size=300))
def test_no_octets_crash_the_reader_of_answers(data: bytes) -> None:
    try:
        read_answer(data)
    except InvalidInput:
        return
