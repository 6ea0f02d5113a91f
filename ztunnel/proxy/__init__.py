"""The paths a connection takes through a worker: outbound, inbound over HBONE, inbound in plain text."""
