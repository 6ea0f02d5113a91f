"""Waypoints: what the mesh knows becomes configuration of a stock Envoy. Pure but for `agent`."""
