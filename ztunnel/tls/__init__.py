"""Mutual TLS between proxies: contexts per identity, the check of the peer's name, sessions over memory buffers."""
