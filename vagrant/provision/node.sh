#!/bin/sh
# A node: joins the cluster as soon as there is one. The control machine comes last, so this waits in the background.
set -eu
cat >/etc/systemd/system/kubeadm-join.service <<UNIT
[Unit]
Description=Join the cluster, once
ConditionPathExists=!/etc/kubernetes/kubelet.conf
After=containerd.service

[Service]
Type=oneshot
# The token is this clone's own and the cable the machines' own: that is what tells the control plane from others.
ExecStart=/usr/bin/kubeadm join $CONTROL:6443 --token $TOKEN --discovery-token-unsafe-skip-ca-verification
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
UNIT
chmod 600 /etc/systemd/system/kubeadm-join.service
systemctl enable kubeadm-join
[ -n "${OFFLINE-}" ] || systemctl start --no-block kubeadm-join
