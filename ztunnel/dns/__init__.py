"""DNS for pods: names of the mesh are answered here, everything else is forwarded as it is."""
