#!/bin/sh
# The control machine: Kubernetes, a registry for the mesh's image, and waiting for the nodes.
set -eu
export DEBIAN_FRONTEND=noninteractive KUBECONFIG=/etc/kubernetes/admin.conf
apt-get -q -y install --no-install-recommends docker-registry skopeo
install -d -m 755 /etc/docker/registry
cat >/etc/docker/registry/config.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: "$ADDRESS:5000"}
YAML
systemctl enable docker-registry
[ -z "${OFFLINE-}" ] || exit 0
systemctl restart docker-registry

if [ ! -e "$KUBECONFIG" ]; then
    kubeadm init --kubernetes-version "v$KUBERNETES" --apiserver-advertise-address "$ADDRESS" \
        --pod-network-cidr 10.244.0.0/16 --token "$TOKEN" --token-ttl 0
    # Its pods may run here, too: three machines are few.
    kubectl taint nodes --all node-role.kubernetes.io/control-plane- || true
fi
for home in /root /home/vagrant; do
    [ -d "$home" ] || continue
    install -d "$home/.kube"
    install -m 600 -o "$(stat -c %u "$home")" -g "$(stat -c %g "$home")" "$KUBECONFIG" "$home/.kube/config"
done
echo "waiting for $MACHINES machines"
until [ "$(kubectl get nodes --no-headers | grep -cw Ready)" -ge "$MACHINES" ]; do
    sleep 5
done
kubectl get nodes -o wide
