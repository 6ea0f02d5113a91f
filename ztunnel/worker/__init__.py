"""The worker process: owns sockets, moves bytes, asks the director."""
