"""The committed descriptor set is what the .proto files say, and lives beside other sets."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2

from ambient.xds.wire import DESCRIPTOR_SET, compile_descriptor_set, message


def test_the_committed_set_is_what_the_proto_files_compile_to() -> None:
    committed = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
    compiled = descriptor_pb2.FileDescriptorSet.FromString(compile_descriptor_set())
    ours = lambda files: {f.name: f for f in files.file if not f.name.startswith("google/")}  # noqa: E731
    assert ours(committed) == ours(compiled)
    assert {f.name for f in committed.file} == {f.name for f in compiled.file}


def test_our_classes_are_not_in_the_default_pool() -> None:
    from google.protobuf import descriptor_pool

    assert message("istio.workload.Workload") is message("istio.workload.Workload")
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("istio.workload.Workload")


def test_a_name_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(KeyError):
        message("istio.workload.Nothing")
