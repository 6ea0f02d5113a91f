"""Making images without a container engine: a Debian root by debootstrap, layers and archives by ourselves."""
