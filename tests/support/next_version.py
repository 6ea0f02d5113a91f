"""The version after this one, as a tree of its own: rows of pods and of policy and what is noted of packets with a
further member, in front of the others, and a map that this version does not have. Made from the sources as they are,
loaded by the real loader.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FURTHER_MAP = "visits"
FURTHER_MEMBER = "tomorrow"

_VISITS = """#ifndef AMBIENT_MAPS_VISITS_H
#define AMBIENT_MAPS_VISITS_H
#include "../include/contract.h"
#ifdef AMBIENT_BCC
BPF_TABLE_PINNED("hash", struct address, __u64, visits, 1024, MAP_PIN("visits"));
INLINE void visit(struct address *pod)
{
	__u64 one = 1;
	visits.update(pod, &one);
}
#else
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct address);
	__type(value, __u64);
} visits SEC(".maps");
INLINE void visit(struct address *pod)
{
	__u64 one = 1;
	bpf_map_update_elem(&visits, pod, &one, BPF_ANY);
}
#endif
#endif
"""


def _change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, f"{path} has {before!r} {text.count(before)} times"
    path.write_text(text.replace(before, after))


def make_next_version(tree: Path) -> Path:
    """Give the folder to put on PYTHONPATH."""
    ignored = shutil.ignore_patterns("__pycache__", "*.o", "*.so")
    shutil.copytree(ROOT / "ambient", tree / "ambient", ignore=ignored)
    shutil.copytree(ROOT / "bpf", tree / "bpf", ignore=ignored)
    maps, layout = tree / "bpf" / "maps", tree / "ambient" / "datapath" / "layout.py"
    _change(maps / "pods.h", "struct pod_row {\n", f"struct pod_row {{\n\t__u32 {FURTHER_MEMBER};\n")
    _change(maps / "deny.h", "struct deny_row {\n", f"struct deny_row {{\n\t__u64 {FURTHER_MEMBER};\n")
    _change(maps / "reservations.h", "struct reservation {\n", f"struct reservation {{\n\t__u64 {FURTHER_MEMBER};\n")
    (maps / "visits.h").write_text(_VISITS)
    _change(
        tree / "bpf" / "pod_egress.c", '#include "maps/pods.h"\n', '#include "maps/pods.h"\n#include "maps/visits.h"\n'
    )
    _change(
        tree / "bpf" / "pod_egress.c",
        "	if (packet.opening)\n		return leaving(",
        "	visit(&packet.source);\n	if (packet.opening)\n		return leaving(",
    )
    for structure, kind in (("pod_row", "c_uint32"), ("deny_row", "c_uint64")):
        head = f"class {structure}(ctypes.Structure):\n    _fields_ = (\n"
        _change(layout, head, f'{head}        ("{FURTHER_MEMBER}", ctypes.{kind}),\n')
    deny = tree / "ambient" / "datapath" / "deny.py"
    _change(deny, '_ROW: Final = struct.Struct("=IIII")', '_ROW: Final = struct.Struct("=8xIIII")')
    return tree


def load(tree: Path, bpffs: Path, loader: str) -> None:
    """Have that tree's version loaded; its agent would do no other. Raises CalledProcessError with what it says."""
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import pathlib, sys; from ambient.datapath import programs\n"
            "programs.load(pathlib.Path(sys.argv[1]), sys.argv[2])",
            str(bpffs),
            loader,
        ],
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
