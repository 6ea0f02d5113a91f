#!/bin/sh
# Follows the cluster's list of nodes: the CNI configuration for this machine's range, routes to the others' ranges.
# Enough for machines on one cable; with the kubelet's own credentials, which may read nodes.
set -eu
credentials=${CREDENTIALS:-/etc/kubernetes/kubelet.conf}
configuration=${CONFIGURATION:-/etc/cni/net.d/10-bridge.conflist}
me=${ME:-$(hostname)}

nodes() {
    kubectl --kubeconfig "$credentials" get nodes -o \
        'jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'
}

follow() { # reads lines of: name range address
    while read -r name range address; do
        [ -n "$range" ] && [ -n "$address" ] || continue
        if [ "$name" = "$me" ]; then
            written=$(configure "$range")
            # Written once: others chain themselves to it later.
            [ -e "$configuration" ] || { mkdir -p "${configuration%/*}"; printf '%s\n' "$written" >"$configuration"; }
        else
            ip route replace "$range" via "$address"
        fi
    done
}

configure() {
    cat <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "$1"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

# What leaves the cluster goes under the machine's address.
iptables -t nat -C POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE 2>/dev/null ||
    iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
while true; do
    if [ -s "$credentials" ] && found=$(nodes); then
        printf '%s\n' "$found" | follow
    fi
    [ -z "${ONCE-}" ] || exit 0
    sleep 5
done
