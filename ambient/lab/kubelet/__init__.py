"""The node's kubelet in the lab: runs pods, probes them, answers DNS, and translates Service addresses."""
