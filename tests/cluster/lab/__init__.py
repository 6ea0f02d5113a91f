"""A real Kubernetes on one machine: etcd, API server, controllers, scheduler, and nodes made of namespaces.

Every node has containerd, kubelet and kube-proxy of its own. `python -m tests.cluster.lab --help` lists the verbs.
"""
