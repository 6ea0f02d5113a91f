#!/bin/sh
# The mesh and the sample shop, from the clone on this machine: build the image, install, label, look.
set -eu
export KUBECONFIG=/etc/kubernetes/admin.conf
cd /ambient
built=$(./dev image /root/ambient.tar | tail -n 1)
image=$CONTROL:5000/ambient:${built##*:}
skopeo copy --dest-tls-verify=false oci-archive:/root/ambient.tar "docker://$image"
echo "$image" >/etc/ambient-image

./dev ambient check --pre
./dev ambient install --image "$image"
sed "s#docker.io/library/python:3.13-slim#$image#" daemonset/sample/shop.yaml | kubectl apply -f - >/dev/null
kubectl label namespace shop istio.io/dataplane-mode=ambient --overwrite
kubectl -n shop wait --for condition=Ready pod --all --timeout 300s >/dev/null
./dev ambient check
kubectl -n shop exec visitor -- python3 /srv/shop.py http://web/buy/lamp
