"""Every counter of the kernel is shown once, under a family and a reason."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from ambient.agent.flow_totals import FlowTotals
from ambient.agent.metrics import Reading, Tally, datapath_series, render
from ambient.datapath.layout import Counter
from ambient.model.outcome import Denied, DryRun, Effect, Reason


def reading(tally: Tally | None = None) -> Reading:
    return Reading(
        counters={counter: counter.value + 1 for counter in Counter},
        pods_by_state={"enrolled": 2},
        older=3,
        proxies=1,
        secrets=4,
        policies_known=True,
        policy_rows=6,
        policy_stale=1,
        policy_failures=0,
        judged={DryRun("shop/later", Effect.WOULD_DENY): 8, Denied(Reason.DENIED_BY, "shop/no"): 9},
        failures=5,
        tally=tally or Tally(),
        flows=FlowTotals(),
    )


def test_every_counter_is_shown_exactly_once() -> None:
    series = datapath_series(reading().counters)
    shown = [value for reasons in series.values() for value in reasons.values()]
    assert sorted(shown) == sorted(counter.value + 1 for counter in Counter)


def test_reasons_are_grouped_by_what_was_done() -> None:
    series = datapath_series(reading().counters)
    assert series["refused"]["no_listener_in"] == Counter.REFUSED_NO_LISTENER_IN + 1
    assert series["passed_open"]["out"] == Counter.PASSED_OPEN_OUT + 1
    assert series["captured"]["hbone_in"] == Counter.HBONE_IN + 1


def test_the_text_is_what_prometheus_reads() -> None:
    tally = Tally()
    tally.count_cut("policy", 2)
    tally.cni["ADD held"] = 3
    tally.count_repair("link")
    tally.count_repair("link")
    tally.talks_untold = 7
    samples = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(reading(tally)))
        for sample in family.samples
    }
    assert samples[("ambient_datapath_refused_total", (("reason", "no_listener_out"),))] == (
        Counter.REFUSED_NO_LISTENER_OUT + 1
    )
    assert samples[("ambient_agent_pods", (("state", "enrolled"),))] == 2
    assert samples[("ambient_agent_connections_cut_total", (("why", "policy"),))] == 2
    assert samples[("ambient_agent_repairs_total", (("what", "link"),))] == 2
    assert samples[("ambient_agent_talks_untold_total", ())] == 7
    assert samples[("ambient_agent_cni_answers_total", (("answer", "ADD held"),))] == 3
    assert samples[("ztunnel_connected", ())] == 1
    assert samples[("ambient_agent_enrolment_failures_total", ())] == 5
    assert samples[("ambient_agent_policies_known", ())] == 1


def test_a_dry_run_policy_is_shown_with_its_effect_and_stale_tables_by_their_number() -> None:
    text = render(reading())
    assert 'ambient_policy_dry_runs_total{policy="shop/later",effect="would-deny"} 8' in text
    assert 'ambient_policy_denials_total{policy="shop/no",reason="denied-by"} 9' in text
    assert "ambient_agent_policy_stale_tables 1" in text
    assert "ambient_agent_policy_rows 6" in text
