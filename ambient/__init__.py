"""Everything of the mesh that is not the proxy: model, protocols, control plane, node agent, lab and CLI."""

__version__ = "0.1.0"
