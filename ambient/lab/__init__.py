"""The lab: nodes, pods and Services from Kubernetes YAML on one machine, in network namespaces."""
