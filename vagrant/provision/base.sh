#!/bin/sh
# What every machine of the cluster needs: container runtime, kubelet, a network for pods. Run again it changes nothing.
#   KUBERNETES  its version, as 1.36.3        ADDRESS  this machine's        CONTROL  the control plane's
set -eu
export DEBIAN_FRONTEND=noninteractive
here=${HERE:-/ambient/vagrant/provision}
series=${KUBERNETES%.*}

apt-get -q update
apt-get -q -y install --no-install-recommends ca-certificates curl gpg containerd runc containernetworking-plugins \
    conntrack iptables iproute2 ethtool socat

# Kubernetes' own packages, one version, held. REPOSITORY: another source of them, as apt's one-line form has it.
key=/etc/apt/keyrings/kubernetes.gpg
place=https://pkgs.k8s.io/core:/stable:/v$series/deb/
install -d -m 755 /etc/apt/keyrings
if [ -z "${REPOSITORY-}" ] && [ ! -s "$key" ]; then
    curl -fsSL "${place}Release.key" | gpg --dearmor --yes -o "$key"
fi
echo "${REPOSITORY:-deb [signed-by=$key] $place /}" >/etc/apt/sources.list.d/kubernetes.list
apt-get -q update
apt-get -q -y install "kubelet=$KUBERNETES-*" "kubeadm=$KUBERNETES-*" "kubectl=$KUBERNETES-*"
apt-mark hold kubelet kubeadm kubectl
echo "KUBELET_EXTRA_ARGS=--node-ip=$ADDRESS" >/etc/default/kubelet

# Kernel: bridged traffic is seen by iptables, packets are forwarded, no swap.
printf '%s\n' overlay br_netfilter >/etc/modules-load.d/kubernetes.conf
printf '%s\n' net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 >/etc/sysctl.d/90-kubernetes.conf
sed -i '/\sswap\s/s/^#*/#/' /etc/fstab
if [ -z "${OFFLINE-}" ]; then
    modprobe -a overlay br_netfilter
    sysctl -q --system
    swapoff -a
fi

# containerd: control groups by systemd, Debian's place of CNI plugins, images of our own registry on the control machine.
install -d /etc/containerd /opt/cni/bin "/etc/containerd/certs.d/$CONTROL:5000"
containerd config default |
    sed -e 's/SystemdCgroup = false/SystemdCgroup = true/' \
        -e 's#config_path = ""#config_path = "/etc/containerd/certs.d"#' >/etc/containerd/config.toml
printf 'server = "http://%s:5000"\n' "$CONTROL" >"/etc/containerd/certs.d/$CONTROL:5000/hosts.toml"
for plugin in /usr/lib/cni/*; do
    ln -sf "$plugin" /opt/cni/bin/
done

# Pods' network: a bridge on each machine, a route to every other machine's.
install -m 755 "$here/pod-network.sh" /usr/local/sbin/pod-network
install -m 644 "$here/pod-network.service" /etc/systemd/system/pod-network.service
systemctl enable pod-network containerd kubelet
[ -n "${OFFLINE-}" ] || systemctl restart containerd pod-network
