"""The protobuf classes of every protocol we speak, in a descriptor pool of our own.

No generated code: `proto/wire.binpb` is the FileDescriptorSet of `proto/*.proto` and what they import. The pool is
private, so that another package with the same message names (Envoy's full API, say) can live in the same process.
`python -m ambient.xds.wire` writes the set again after a change of a .proto file (needs grpcio-tools).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO_FOLDER = Path(__file__).parent / "proto"
DESCRIPTOR_SET = PROTO_FOLDER / "wire.binpb"


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@functools.cache
def message(full_name: str) -> Any:
    """The class of a message, e.g. `message("istio.workload.Workload")`. Typed Any: its fields come from the set.

    Raises KeyError for a name that is not in the set.
    """
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))


def compile_descriptor_set() -> bytes:
    """Compile proto/*.proto anew and return the serialized set; raises RuntimeError when protoc refuses them."""
    import tempfile

    from grpc_tools import protoc  # type: ignore[import-untyped]

    sources = sorted(str(path) for path in PROTO_FOLDER.glob("*.proto"))
    include = str(Path(protoc.__file__).parent / "_proto")
    with tempfile.NamedTemporaryFile(suffix=".binpb") as out:
        options = [f"-I{PROTO_FOLDER}", f"-I{include}", f"--descriptor_set_out={out.name}", "--include_imports"]
        if protoc.main(["protoc", *options, *sources]) != 0:
            raise RuntimeError("protoc refused the .proto files")
        return Path(out.name).read_bytes()


if __name__ == "__main__":
    DESCRIPTOR_SET.write_bytes(compile_descriptor_set())
