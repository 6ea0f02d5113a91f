"""A discovery client core on a server core, stepped one message at a time."""

from __future__ import annotations

from ambient.xds.catalogue import Catalogue
from ambient.xds.client import DeltaClient
from ambient.xds.codec import Record, name_of
from ambient.xds.messages import (
    DeltaResponse,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    ztunnel_node,
)
from ambient.xds.server import DeltaStream

NODE = ztunnel_node("n1")


class Peer:
    """A client core on a server core, with the client's view of the mesh; everything crosses as bytes."""

    def __init__(self, catalogue: Catalogue, client: DeltaClient | None = None) -> None:
        self.client = client or DeltaClient(NODE)
        self.view: dict[str, Record] = {}
        self.connect(catalogue)

    def connect(self, catalogue: Catalogue) -> None:
        self.stream = DeltaStream(catalogue, node="n1")
        self.answers = list(self.client.open())
        self.arriving: list[DeltaResponse] = []

    def server_step(self) -> bool:
        response = self.stream.pull()
        if response is not None:
            self.arriving.append(decode_response(encode_response(response)))
        return response is not None

    def client_step(self) -> bool:
        if not self.arriving:
            return False
        batch, answer = self.client.receive(self.arriving.pop(0))
        for _, name in batch.gone:
            self.view.pop(name, None)
        self.view.update((name_of(record), record) for record in batch.put)
        self.answers.append(answer)
        return True

    def answer_step(self) -> bool:
        if not self.answers:
            return False
        self.stream.receive(decode_request(encode_request(self.answers.pop(0))))
        return True

    def settle(self) -> list[DeltaResponse]:
        """Run until nothing moves; gives the responses that crossed."""
        crossed: list[DeltaResponse] = []
        while self.answer_step() or self.server_step() or self.arriving:
            crossed += self.arriving
            while self.client_step():
                pass
        return crossed
