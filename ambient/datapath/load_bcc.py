"""The bcc loader: `python -m ambient.datapath.load_bcc JOB`, a process of one second.

It compiles, loads, pins the maps (bcc does that, at the paths in the source) and the programs, and exits; its 120 MB of
compiler go with it. JOB is JSON: {"sources", "maps", "programs", "listeners"}: three directories, and which form of
the programs (`tc_sockets`). Nothing resident imports this.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ambient.datapath import bpfsys, sources
from ambient.datapath.hooks import HOOKS, NODE_HOOKS, Attach
from ambient.datapath.tc_sockets import NAMED_MACRO

_SCHED_CLS: Final = 3
_SOCK_OPS: Final = 13
_SK_LOOKUP: Final = 30


def _repair(library: Any) -> None:
    """bcc 0.26 gives no argument types for these two, so a 64-bit pointer is cut to 32 and the process crashes."""
    library.bpf_num_tables.argtypes = [ctypes.c_void_p]
    library.bpf_num_tables.restype = ctypes.c_size_t
    library.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.bpf_table_name.restype = ctypes.c_char_p


def main(job: str) -> int:
    given = json.loads(job)
    where = {key: Path(given[key]) for key in ("sources", "maps", "programs")}
    with tempfile.TemporaryDirectory(prefix="amb-headers-") as tree:
        sources.make_header_tree(Path(tree), where["sources"] / "include" / "shim")
        os.environ["BCC_KERNEL_SOURCE"] = tree
        bcc = importlib.import_module("bcc")
        _repair(importlib.import_module("bcc.libbcc").lib)
        flags = ["-Wno-everything", "-DAMBIENT_BCC", f'-DAMBIENT_PINS="{where["maps"]}"']
        flags += [f"-D{NAMED_MACRO}"] if given["listeners"] == "named" else []
        module = bcc.BPF(text=sources.flatten(where["sources"] / sources.MAIN), cflags=flags)
        for hook in (*HOOKS, *NODE_HOOKS):
            if hook.attach is Attach.SK_LOOKUP:
                program = module.load_func(hook.program, _SK_LOOKUP, attach_type=hook.attach)
            elif hook.attach is Attach.SOCK_OPS:
                program = module.load_func(hook.program, _SOCK_OPS, attach_type=hook.attach)
            else:
                program = module.load_func(hook.program, _SCHED_CLS)
            bpfsys.pin(program.fd, where["programs"] / hook.program)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
