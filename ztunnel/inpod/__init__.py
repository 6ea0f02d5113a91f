"""Pods of this node: their listening sockets and the conversation with the node agent about them."""
