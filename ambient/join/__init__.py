"""A machine outside Kubernetes as a member of the mesh: what `ambient join` runs there."""
