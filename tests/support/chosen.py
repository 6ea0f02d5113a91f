"""What objects are derived to, and which policies a pod among them is told to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ambient.control.derive import Derived, derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.objects import Condition, Pod, Records
from ambient.model.policy import Authorization


@dataclass(frozen=True)
class Chosen:
    """Objects under settings whose root namespace is istio-system."""

    records: Records
    dry_run: bool = False

    @cached_property
    def derived(self) -> Derived:
        return derive(self.records, DeriveSettings(dry_run_policies=self.dry_run))

    @property
    def policies(self) -> Mapping[str, Authorization]:
        return self.derived.policies

    @property
    def conditions(self) -> Mapping[str, tuple[Condition, ...]]:
        return self.derived.conditions

    def selecting(self, pod: Pod) -> tuple[str, ...]:
        """Names of the policies that this pod, put among the objects, is told."""
        among = Chosen(replace(self.records, by_key={**self.records.by_key, pod.key: pod}), self.dry_run)
        (workload,) = among.derived.workloads.values()
        return workload.authorization_policies
