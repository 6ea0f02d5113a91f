#!/bin/sh
# On the control machine: the journeys of the tests against this cluster. `vagrant ssh control -c "sudo /ambient/vagrant/journeys.sh"`
set -eu
AMBIENT_TEST_KUBECONFIG=/etc/kubernetes/admin.conf
AMBIENT_TEST_IMAGE=$(cat /etc/ambient-image)
export AMBIENT_TEST_KUBECONFIG AMBIENT_TEST_IMAGE
cd /ambient
exec ./dev test cluster "$@"
