"""What an expression grows to when its counts are written out."""

from __future__ import annotations

import pytest

from ambient.kube.expression_size import Size, size_of


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", Size()),
        ("abc", Size(3)),
        ("é", Size(2)),
        (r"\d+?", Size(4)),
        ("a{3}", Size(4 * 3, 3)),
        ("a{3,5}b{2}", Size(6 * 5 + 4 * 2, 5)),
        ("a{3,}?", Size(5 * 3 + 1, 3)),
        ("[a-z]{4}", Size(8 * 4, 4, classes=True)),
        ("[^]x]{2}", Size(8 * 2, 2, classes=True)),
        (r"[\]{9}]", Size(7)),
        ("(ab){2}", Size(7 * 2, 2, groups=True)),
        ("(a{40}){40}", Size((5 * 40 + 2 + 4) * 40, 1600, groups=True)),
        ("(a{4}b{5}){6}", Size((4 * 4 + 4 * 5 + 2 + 3) * 6, 30, groups=True)),
        ("((a){2})", Size(6 * 2 + 2, 2, groups=True)),
        ("(a", Size(3)),
        ("a)b", Size(3)),
        ("[a", Size(2)),
        ("\\", Size(1)),
    ],
)
def test_counts_within_each_other_multiply_and_those_beside_each_other_add_up(text: str, size: Size) -> None:
    assert size_of(text) == size
