"""A server that is asked whether requests may pass: Envoy's ext_authz by gRPC on 9000, by HTTP on 8000.

Run in a pod of a lab: `python -c CODE`. Yes to whoever sends `x-allow: yes`; it says whom it takes him for in x-user.
"""

from __future__ import annotations

import inspect
import sys
from typing import Final


def _serve() -> None:
    import http.server
    import threading
    from concurrent import futures

    import grpc
    from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
    from envoy.service.auth.v3.external_auth_pb2 import (
        CheckRequest,
        CheckResponse,
        DeniedHttpResponse,
        OkHttpResponse,
    )

    def said(name: str, value: str) -> HeaderValueOption:
        return HeaderValueOption(header=HeaderValue(key=name, value=value))

    def check(request: CheckRequest, context: object) -> CheckResponse:
        if request.attributes.request.http.headers.get("x-allow") == "yes":
            return CheckResponse(ok_response=OkHttpResponse(headers=[said("x-user", "by-grpc")]))
        denied = DeniedHttpResponse(headers=[said("x-why", "by-grpc")], body="not you")
        denied.status.code = 401
        answer = CheckResponse(denied_response=denied)
        answer.status.code = 7
        return answer

    class Asked(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            good = self.headers.get("x-allow") == "yes" and self.path.startswith("/check/")
            self.send_response(200 if good else 402)
            self.send_header("x-user" if good else "x-why", f"by-http {self.headers.get('x-from')}")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    method = grpc.unary_unary_rpc_method_handler(
        check, request_deserializer=CheckRequest.FromString, response_serializer=CheckResponse.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(4))
    service = "envoy.service.auth.v3.Authorization"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Check": method}),))
    server.add_insecure_port("0.0.0.0:9000")
    server.start()
    threaded = http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Asked)
    threading.Thread(target=threaded.serve_forever, daemon=True).start()
    server.wait_for_termination()


COMMAND: Final = [sys.executable, "-c", f"from __future__ import annotations\n{inspect.getsource(_serve)}\n_serve()"]
