"""What director and workers say to each other over a Unix socket, and the channel that carries it."""
