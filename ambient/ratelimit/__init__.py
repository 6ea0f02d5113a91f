"""The service that counts requests for all waypoints and gateways together, in Redis."""
