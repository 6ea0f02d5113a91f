"""Every command that the documents show is run, here or by the test that its block names."""

from __future__ import annotations

import secrets

import pytest

from ambient.lab.names import Names, lab_name
from ambient.lab.teardown import down, remains
from tests.support.docs import DOCUMENTS, ROOT, Block, blocks, lacking, run, syntax

ALL = [block for document in DOCUMENTS if (ROOT / document).exists() for block in blocks(document)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md"])
def test_a_newcomer_gets_through_with_the_lab(document: str) -> None:
    names = Names(lab_name(f"docs-{secrets.token_hex(3)}"))
    try:
        run(document, "lab", {"AMBIENT_LAB": names.lab}, timeout_s=500)
    finally:
        down(names)
    assert not remains(names)


@pytest.mark.parametrize("block", ALL, ids=lambda block: f"{block.document}:{block.line}")
def test_a_block_says_who_runs_it_and_is_well_formed(block: Block) -> None:
    assert block.elsewhere or block.runs_in in ("lab", "cluster", "untried"), "nobody runs it"
    assert not block.elsewhere or (ROOT / block.elsewhere).exists(), f"{block.elsewhere} is not there"
    assert syntax(block) == ""


def test_what_is_not_printed_is_noticed() -> None:
    assert lacking(("a ... c", "d"), "x\na  b   c\nd\n") == ""
    assert lacking(("a ... c", "d"), "d\na b c\n") == "d", "out of order"
    assert lacking(("a ... c",), "a b\nc\n") == "a ... c", "not on one line"
    assert lacking((), "") == ""
