from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.agent import cni_conf
from ambient.agent.cni_conf import Chained, Entry, candidates, chain, has_ours, read, same, unchain
from ambient.errors import InvalidInput

ENTRY = Entry(socket="/var/run/ambient/cni.sock", pass_namespaces=("ambient-system", "kube-system"), timeout_s=30)
OURS = {
    "type": "ambient-cni",
    "ambient": {
        "socket": "/var/run/ambient/cni.sock",
        "passNamespaces": ["ambient-system", "kube-system"],
        "timeoutSeconds": 30,
    },
}
PTP = {"type": "ptp", "ipMasq": False, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
FLANNEL = {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}}
CALICO = {
    "type": "calico",
    "log_level": "info",
    "mtu": 0,
    "ipam": {"type": "calico-ipam"},
    "policy": {"type": "k8s"},
    "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
}


def conflist(*plugins: Any, version: Any = "0.3.1", **more: Any) -> dict[str, Any]:
    return {"cniVersion": version, "name": "pods", "plugins": list(plugins), **more}


LISTS: dict[str, dict[str, Any]] = {
    "kindnet": conflist(PTP, PORTMAP, name="kindnet"),
    "bridge": conflist({"type": "bridge", "bridge": "cni0", "isGateway": True}, PORTMAP, version="0.4.0"),
    "bridge alone in a list": conflist({"type": "bridge"}, version="1.0.0"),
    "flannel": conflist(FLANNEL, PORTMAP, name="cbr0"),
    "calico": conflist(
        CALICO, PORTMAP, {"type": "bandwidth", "capabilities": {"bandwidth": True}}, name="k8s-pod-network"
    ),
    "canal": conflist(
        {**CALICO, "ipam": {"type": "host-local", "subnet": "usePodCidr"}}, PORTMAP, name="k8s-pod-network"
    ),
    "cilium": conflist({"type": "cilium-cni", "enable-debug": False, "log-file": "/x"}, name="cilium"),
    "cilium with portmap": conflist({"type": "cilium-cni"}, PORTMAP),
    "aws": conflist(
        {"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001", "podSGEnforcingMode": "strict"},
        {"name": "egress-cni", "type": "egress-cni", "ipam": {"type": "host-local"}},
        PORTMAP,
        version="0.4.0",
        disableCheck=True,
        name="aws-cni",
    ),
    "azure": conflist(
        {"type": "azure-vnet", "mode": "transparent", "ipam": {"type": "azure-vnet-ipam"}}, PORTMAP, version="0.3.0"
    ),
    "gke": conflist({"type": "ptp", "mtu": 1460, "ipam": {"type": "host-local"}}, PORTMAP, name="k8s-pod-network"),
    "ovn": conflist({"type": "ovn-k8s-cni-overlay", "ipam": {}, "dns": {}}, version="0.4.0"),
    "weave": conflist(
        {"name": "weave", "type": "weave-net", "hairpinMode": True}, PORTMAP, name="weave", version="0.3.0"
    ),
    "antrea": conflist(
        {"type": "antrea", "ipam": {"type": "host-local"}}, PORTMAP, {"type": "bandwidth"}, name="antrea"
    ),
    "multus": conflist({"type": "multus", "clusterNetwork": "10-calico", "kubeconfig": "/x"}, version="0.3.1"),
    "with tuning": conflist({"type": "bridge"}, {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}),
    "istio behind it": conflist(PTP, PORTMAP, {"type": "istio-cni", "name": "istio-cni"}),
    "linkerd behind it": conflist(PTP, {"type": "linkerd-cni"}),
    "version 1.1.0 and a list of versions": conflist(PTP, version="1.1.0", cniVersions=["0.4.0", "1.0.0", "1.1.0"]),
    "only a list of versions": {"cniVersions": ["1.0.0", "1.1.0"], "name": "pods", "plugins": [PTP]},
    "not only inlined plugins": conflist(PTP, version="1.1.0", loadOnlyInlinedPlugins=False),
    "an older entry of ours": conflist(PTP, {**OURS, "ambient": {"socket": "/old.sock"}}),
    "ours before another": conflist(PTP, {"type": "ambient-cni"}, PORTMAP),
    "ours twice": conflist(PTP, OURS, OURS),
    "names in other scripts": conflist({"type": "bridge", "comment": "Küche 🍳"}),
    "large numbers": conflist({"type": "bridge", "n": 12345678901234567890, "f": 1.5}),
    "unknown keys at the top": conflist(PTP, capabilities={"a": True}, **{"x-vendor": [1, None]}),
}
SINGLES: dict[str, dict[str, Any]] = {
    "bridge": {"cniVersion": "0.3.1", "name": "mynet", "type": "bridge", "ipam": {"type": "host-local"}},
    "multus": {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "clusterNetwork": "/x"},
    "cilium": {"cniVersion": "0.3.1", "name": "cilium", "type": "cilium-cni"},
    "netavark": {"cniVersion": "1.0.0", "name": "n.et_1-2", "type": "netavark"},
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "is not JSON"),
    "empty": (b"", "is not JSON"),
    "binary": (b"\xff\xfe", "is not JSON"),
    "with a byte order mark": (b"\xef\xbb\xbf{}", "is not JSON"),
    "NaN": (b'{"name": "a", "x": NaN}', "is not JSON"),
    "a list": (b"[]", "is not an object"),
    "no name": (json.dumps({"cniVersion": "1.0.0", "plugins": [PTP]}).encode(), "no name"),
    "a name that is none": (json.dumps({**conflist(PTP), "name": "../x"}).encode(), "no name"),
    "no plugins": (json.dumps({"cniVersion": "1.0.0", "name": "a"}).encode(), "no plugins"),
    "plugins are none": (json.dumps(conflist()).encode(), "no plugins"),
    "plugins no list": (json.dumps({**conflist(), "plugins": PTP}).encode(), "no plugins"),
    "a plugin no object": (json.dumps(conflist("bridge")).encode(), "without a type"),
    "a plugin without type": (json.dumps(conflist(PTP, {"name": "x"})).encode(), "without a type"),
    "a type that is none": (json.dumps(conflist({"type": ""})).encode(), "without a type"),
    "no version": (json.dumps({"name": "a", "plugins": [PTP]}).encode(), "cniVersion is missing"),
    "an empty version": (json.dumps(conflist(PTP, version="")).encode(), "cniVersion is missing or is none"),
    "a version that is a number": (json.dumps(conflist(PTP, version=1)).encode(), "cniVersion is missing or is none"),
    "version 0.1.0": (json.dumps(conflist(PTP, version="0.1.0")).encode(), "0.1.0 is too old"),
    "version 0.2.0": (json.dumps(conflist(PTP, version="0.2.0")).encode(), "0.2.0 is too old"),
    "ours alone": (json.dumps(conflist(OURS)).encode(), "is its first plugin"),
    "ours first": (json.dumps(conflist(OURS, PTP)).encode(), "is its first plugin"),
    "loopback's": (json.dumps(conflist({"type": "loopback"})).encode(), "loopback interface"),
    "too deep": (b'{"name": "a", "x": ' + b"[" * 100000, "is not JSON"),
}


def chained(name: str, value: Any) -> Chained:
    found = chain(name, json.dumps(value).encode(), ENTRY)
    assert found is not None
    return found


@pytest.mark.parametrize("name", LISTS)
def test_ours_comes_last_and_nothing_else_changes(name: str) -> None:
    made = chained("10-x.conflist", LISTS[name])
    others = [p for p in LISTS[name]["plugins"] if p["type"] != "ambient-cni"]
    assert (made.name, made.replaces) == ("10-x.conflist", "")
    assert json.loads(made.content) == {**LISTS[name], "plugins": [*others, OURS]}
    assert chain(made.name, made.content, ENTRY) is None


@pytest.mark.parametrize("name", LISTS)
def test_taken_out_again_it_is_as_before(name: str) -> None:
    before = json.dumps(LISTS[name]).encode()
    made = chained("10-x.conflist", LISTS[name])
    others = [p for p in LISTS[name]["plugins"] if p["type"] != "ambient-cni"]
    assert json.loads(unchain(made.content)) == {**LISTS[name], "plugins": others}
    if not has_ours(before):
        assert same("10-x.conflist", before, made.content)


@pytest.mark.parametrize("suffix", ["conf", "json"])
@pytest.mark.parametrize("name", SINGLES)
def test_a_single_plugin_becomes_a_list_of_the_same_network(name: str, suffix: str) -> None:
    single = SINGLES[name]
    made = chained(f"10-x.{suffix}", single)
    assert (made.name, made.replaces) == ("10-x.conflist", f"10-x.{suffix}")
    assert json.loads(made.content) == {
        "cniVersion": single["cniVersion"],
        "name": single["name"],
        "plugins": [single, OURS],
    }
    assert same(f"10-x.{suffix}", json.dumps(single).encode(), made.content)


@pytest.mark.parametrize("name", REFUSED)
def test_a_configuration_in_which_ours_cannot_work_is_left_alone(name: str) -> None:
    content, why = REFUSED[name]
    with pytest.raises(InvalidInput, match=why):
        chain("10-x.conflist", content, ENTRY)


def test_the_runtime_looks_at_three_kinds_of_names_in_lexical_order() -> None:
    names = [
        "99-loopback.conf",
        "10-b.conflist",
        "10-a.json",
        "05-x.conf.before-ambient",
        "05-cilium.conflist",
        "README",
    ]
    assert candidates(names) == ["05-cilium.conflist", "10-a.json", "10-b.conflist", "99-loopback.conf"]
    assert candidates(["10-x.conflist", "10-x.conf"]) == ["10-x.conf", "10-x.conflist"]


def test_an_entry_of_other_settings_is_replaced_where_it_stands_last() -> None:
    before = conflist(PTP, {**OURS, "ambient": {**OURS["ambient"], "timeoutSeconds": 5}})  # type: ignore[dict-item]
    assert json.loads(chained("a.conflist", before).content)["plugins"] == [PTP, OURS]


def test_somebody_elses_change_is_not_taken_for_ours() -> None:
    made = chained("a.conflist", conflist(PTP))
    changed = json.loads(made.content)
    changed["plugins"][0] = PORTMAP
    assert not same("a.conflist", json.dumps(conflist(PTP)).encode(), json.dumps(changed).encode())
    assert not same("a.conflist", b"{", made.content)
    assert not has_ours(b"{")
    assert not has_ours(b"[]")
    assert not has_ours(b'{"plugins": 3}')


def test_who_needs_a_word_of_warning_is_known() -> None:
    def value(name: str) -> Any:
        return read("a.conflist", json.dumps(LISTS[name]).encode())

    assert [cni_conf.multus(value(name)) for name in ("multus", "calico")] == [True, False]
    assert [cni_conf.cilium(value(name)) for name in ("cilium", "calico")] == [True, False]
