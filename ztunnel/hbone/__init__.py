"""HBONE framing: HTTP/2 CONNECT tunnels, both roles, without I/O, clock or randomness."""
