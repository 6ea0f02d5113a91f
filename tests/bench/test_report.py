"""What the benchmarks print and write is what was measured."""

from __future__ import annotations

import os

import pytest

from bench.__main__ import parse
from bench.cases import CASES, Sample
from bench.process import cpu_ns, memory, parse_rollup, role
from bench.report import case_json, case_lines, markdown, ratios

SAMPLES = {
    "ambient": [Sample({"rate": 200.0, "cpu": 10.0}, 0), Sample({"rate": 220.0, "cpu": 11.0}, 1)],
    "envoy": [Sample({"rate": 100.0, "cpu": 20.0}, 0), Sample({"rate": 110.0, "cpu": 22.0}, 0)],
    "no mesh": [Sample({"rate": 400.0, "cpu": 0.0}, 0), Sample({"rate": 440.0, "cpu": 0.0}, 0)],
}


def test_a_figure_that_is_nothing_on_one_side_has_no_ratio() -> None:
    assert set(ratios(SAMPLES, "no mesh")) == {"rate"}
    assert ratios(SAMPLES, "envoy")["cpu"].mean == pytest.approx(0.5)


def test_a_slice_without_an_answer_is_told_beside_the_ratio_and_takes_no_figure_away() -> None:
    samples = {
        "ambient": [*SAMPLES["ambient"], Sample({"rate": 0.0, "cpu": 0.0}, 0)],
        "envoy": [*SAMPLES["envoy"], Sample({"rate": 110.0, "cpu": 22.0}, 0)],
    }
    assert ratios(samples, "envoy")["rate"].empty == 1
    assert case_json(CASES[0], samples)["ratio_to"]["envoy"]["rate"]["empty"] == 1
    lines = case_lines(CASES[0], samples)
    assert all(", 1 empty left out x envoy" in line for line in lines[1:3])
    assert "ambient 200" in lines[1], "no answer is a rate"
    assert "ambient 10.5" in lines[2], "but neither a latency nor a cost"


def test_json_has_every_sample_and_every_ratio() -> None:
    found = case_json(CASES[0], SAMPLES)
    assert found["arms"]["ambient"] == {"rate": [200.0, 220.0], "cpu": [10.0, 11.0], "errors": [0, 1]}
    assert found["ratio_to"]["envoy"]["rate"] == {"mean": 2.0, "low": 2.0, "high": 2.0, "pairs": 2, "empty": 0}


def test_errors_of_the_load_are_printed_never_hidden() -> None:
    assert "errors: {'ambient': 1, 'envoy': 0, 'no mesh': 0}" in case_lines(CASES[0], SAMPLES)[-1]


def test_the_table_has_a_ratio_for_every_other_arm() -> None:
    table = markdown([(CASES[0], SAMPLES)])
    assert table[0].count("ratio to") == 2
    assert "2.000 (2.000-2.000)" in table[2]
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("arguments", [["--rounds", "6"], ["--slices", "6"], ["nonsense"]])
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2


def test_rollup_figures_are_read_by_name() -> None:
    text = "00400000-7fff rollup\nRss: 9 kB\nPss: 7 kB\nPrivate_Clean: 2 kB\nPrivate_Dirty: 3 kB\n"
    assert (parse_rollup(text).pss, parse_rollup(text).private) == (7, 5)


def test_the_time_of_a_living_process_is_counted_and_of_a_dead_one_is_nothing() -> None:
    assert cpu_ns([os.getpid()]) > 0
    assert cpu_ns([]) == cpu_ns([2**22 + 1]) == 0


def test_a_process_is_named_by_its_command_line() -> None:
    assert role(os.getpid()) != "gone"
    assert role(2**22 + 1) == "gone"
    assert memory(2**22 + 1) is None
