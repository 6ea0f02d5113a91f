"""The rules of the house as functions from a tree to findings; empty = kept. `tests/test_architecture.py` runs them.

Each takes the root of a tree, so that its sabotage test can plant a fault in a copy and see it found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

PACKAGES: Final = ("ambient", "ztunnel")
LINES: Final = 400

_GROUND: Final = frozenset({"errors", "http", "log", "settings", "netns", "waking", "model"})
_PROTOCOLS: Final = frozenset({"xds", "zds"})
_ADAPTERS: Final = frozenset({"kube", "ca", "datapath", "waypoint", "flows"})
_BELOW_PROGRAMS: Final = _GROUND | _PROTOCOLS | _ADAPTERS

ARROWS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "__main__": frozenset({"cli"}),
        "errors": frozenset(),
        "model": frozenset({"errors"}),
        "settings": frozenset({"errors", "model"}),
        "netns": frozenset({"errors"}),
        "http": frozenset({"errors", "model"}),
        "log": frozenset(),
        "waking": frozenset(),
        "xds": _GROUND,
        "zds": _GROUND | {"xds"},
        "kube": _GROUND | _PROTOCOLS,
        "ca": _GROUND | _PROTOCOLS,
        "datapath": _GROUND | _PROTOCOLS,
        "waypoint": _GROUND | _PROTOCOLS | {"kube"},
        "flows": _GROUND | _PROTOCOLS,
        "ratelimit": _GROUND | _PROTOCOLS | {"kube", "waypoint"},
        "control": _BELOW_PROGRAMS,
        "agent": _BELOW_PROGRAMS,
        "lab": _BELOW_PROGRAMS,
        "join": _BELOW_PROGRAMS | {"lab"},
        "cli": _BELOW_PROGRAMS | {"lab", "join"},
    }
)
"""What each part of `ambient` may import of the others."""

ZTUNNEL_MAY: Final = frozenset({"model", "xds", "zds", "errors", "settings", "netns", "waking"})

CORES: Final = (
    "ambient.model",
    "ambient.xds",
    "ambient.zds",
    "ambient.ca",
    "ambient.datapath.plan",
    "ambient.control.derive",
    "ambient.agent.enrol",
    "ztunnel.hbone",
    "ztunnel.tls.verify",
)
SHELLS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ambient.xds.channel": "gRPC channels",
        "ambient.xds.pace": "turns of the event loop and the garbage collector",
        "ambient.xds.subscribe": "the client's stream over gRPC",
        "ambient.zds.packet": "packets with descriptors over a Unix socket",
    }
)
"""Modules inside a core package that are its shell, and what of the world they touch."""

IO_MODULES: Final = frozenset({"asyncio", "socket", "ssl", "time", "selectors", "threading", "subprocess"})

WORKER_SIDE: Final = (
    "ztunnel.worker",
    "ztunnel.proxy",
    "ztunnel.hbone",
    "ztunnel.tls",
    "ztunnel.telemetry",
    "ztunnel.dns",
    "ztunnel.ipc",
)
HEAVY: Final = frozenset({"grpc", "cryptography", "prometheus_client", "google"})

CTYPES_MAY: Final = ("ambient.netns", "ambient.datapath", "ztunnel.worker.heap")


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of ours."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in the file; `from a import b` gives a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def arrows(root: Path) -> list[str]:
    """Imports go down only, and every part of `ambient` has its line in the table."""
    findings = []
    for name, path in modules(root).items():
        top, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if top == "ambient" and part and part not in ARROWS:
            findings.append(f"{name}: not in the table of arrows")
            continue
        for target in imports(name, path):
            target_top, _, target_rest = target.partition(".")
            target_part = target_rest.partition(".")[0]
            if target_top == "ztunnel" and top == "ambient":
                findings.append(f"{name} imports {target}: ambient never imports ztunnel")
            if target_top == "tests":
                findings.append(f"{name} imports {target}: nothing imports tests")
            if target_top != "ambient" or target_part not in ARROWS:
                continue
            allowed = ZTUNNEL_MAY if top == "ztunnel" else ARROWS.get(part, frozenset()) | {part}
            if target_part not in allowed:
                findings.append(f"{name} imports {target}: against the arrows")
    return findings


def cores(root: Path) -> list[str]:
    """Cores do no I/O and have no clock."""
    return [
        f"{name} imports {target}: a core does no I/O"
        for name, path in modules(root).items()
        if within(name, CORES) and not within(name, tuple(SHELLS))
        for target in imports(name, path)
        if target.partition(".")[0] in IO_MODULES
    ]


def light_workers(root: Path) -> list[str]:
    """Nothing that a worker imports, at any depth, imports a heavy library: it would cost every worker its memory."""
    ours = modules(root)
    direct = {name: list(imports(name, path)) for name, path in ours.items()}
    via: dict[str, str] = {name: "" for name in ours if within(name, WORKER_SIDE)}
    todo = list(via)
    findings = []
    while todo:
        name = todo.pop()
        for target in direct[name]:
            if target.partition(".")[0] in HEAVY:
                chain = f" (reached from {via[name]})" if via[name] else ""
                findings.append(f"{name} imports {target}: too heavy for a worker{chain}")
            for candidate in _with_parents(target):
                if candidate in ours and candidate not in via:
                    via[candidate] = via[name] or name
                    todo.append(candidate)
    return sorted(set(findings))


def _with_parents(dotted: str) -> Iterator[str]:
    parts = dotted.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def foreign_functions(root: Path) -> list[str]:
    """ctypes only at the named borders: the kernel's, and the C library's heap."""
    return [
        f"{name} imports {target}: ctypes is for {' and '.join(CTYPES_MAY)}"
        for name, path in modules(root).items()
        if not within(name, CTYPES_MAY)
        for target in imports(name, path)
        if target.partition(".")[0] == "ctypes"
    ]


def lengths(root: Path) -> list[str]:
    """No module, eBPF source or test grows past the stop."""
    files = [*modules(root).values(), *(root / "tests").rglob("*.py"), *(root / "bpf").rglob("*.[ch]")]
    counted = ((path, len(path.read_text().splitlines())) for path in files)
    return [f"{path.relative_to(root)}: {count} lines, stop is {LINES}" for path, count in counted if count > LINES]


def output(root: Path) -> list[str]:
    """Only the command line and the entry points of processes print."""
    findings = []
    for name, path in modules(root).items():
        if within(name, ("ambient.cli",)) or path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                findings.append(f"{name}:{node.lineno}: print outside the command line")
    return findings


_VAGUE: Final = re.compile(r"(Manager|Helper|Utils?)$|^(manager|helper|helpers|utils?|common|misc)$")
_PROMISE: Final = re.compile(r"#.*\b(" + "TO" + "DO|FIX" + "ME|X" + "XX)\\b")


def names(root: Path) -> list[str]:
    """No vague names, no promises in comments, no writes to module state."""
    findings = []
    for name, path in modules(root).items():
        text = path.read_text()
        if _VAGUE.search(name.rpartition(".")[2]):
            findings.append(f"{name}: a vague name")
        findings += [f"{name}: a promise: {match[0]}" for match in _PROMISE.finditer(text)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and _VAGUE.search(node.name):
                findings.append(f"{name}: {node.name} is a vague name")
            if isinstance(node, ast.Global):
                findings.append(f"{name}:{node.lineno}: writes module state ({', '.join(node.names)})")
    return findings


def docstrings(root: Path) -> list[str]:
    """Every module that has code says what it is."""
    return [
        f"{name}: no docstring"
        for name, path in modules(root).items()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]


_MACHINE: Final = tuple(
    first + second
    for first, second in (
        ("/wo", "rk/"),
        ("/fa", "rm/"),
        ("..", "/shared"),
        ("/tmp", "/amb"),
        (".py", "env/"),
        ("/opt", "/wheels"),
    )
)
_INTEGRATION: Final = ".ci/run"
_BESIDE: Final = "../" + "shared/kube-lab/cache"
"""Programs that somebody has built already, where they are there."""
_TEXT: Final = frozenset({".py", ".c", ".h", ".md", ".toml", ".json", ".yaml", ".yml", ".sh", ".proto", ".txt", ""})
_NOT_OURS: Final = frozenset(
    {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
)


def machine_paths(root: Path) -> list[str]:
    """The tree names no path of the machine it was written on; only the continuous integration may look beside it."""
    findings = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if (
            not path.is_file()
            or path.suffix not in _TEXT
            or _NOT_OURS & set(inside.parts)
            or ".egg-info" in str(inside)
        ):
            continue
        text = path.read_text(errors="replace")
        if str(inside) == _INTEGRATION:
            text = text.replace(_BESIDE, "")
        findings += [f"{inside}: names {needle}" for needle in _MACHINE if needle in text]
    return findings


def slow_or_patched_tests(root: Path) -> list[str]:
    """Tests do not sleep and do not patch our code; only tests/support may poll."""
    findings = []
    for path in sorted((root / "tests").rglob("*.py")):
        inside = path.relative_to(root)
        if inside.parts[:2] == ("tests", "support"):
            continue
        for target in imports(str(inside), path):
            if target.startswith(("unittest.mock", "mock.")):
                findings.append(f"{inside}: imports {target}")
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "sleep"
                and isinstance(node.func.value, ast.Name)
                and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
            ):
                findings.append(f"{inside}:{node.lineno}: sleeps")
    return findings


def entering(root: Path) -> list[str]:
    """Namespaces are entered by nsenter: `ip netns exec` and `ip -n` mount, which cannot be done in a chroot."""
    needles = ('"netns", ' + '"exec"', '"ip", ' + '"-n"')
    texts = {path: path.read_text() for path in [*modules(root).values(), *(root / "tests").rglob("*.py")]}
    return [f"{path.relative_to(root)}: {needle}" for path in texts for needle in needles if needle in texts[path]]


def mirror(root: Path, elsewhere: Mapping[str, str]) -> list[str]:
    """Every module with behaviour has a test file of its name, or is imported by one in the folder that mirrors its
    package or the one above, or has a line in `elsewhere` that names its tests; and every test file under tests/ambient
    and tests/ztunnel has its module or package."""
    findings = []
    ours = modules(root)
    for name, path in ours.items():
        if path.name in {"__init__.py", "__main__.py"} or not _has_behaviour(path):
            continue
        tested = _tested_by_mirror(root, name)
        if not tested and name not in elsewhere:
            findings.append(f"{name}: no tests/{'/'.join(name.split('.')[:-1])}/test_{name.split('.')[-1]}.py")
        if tested and name in elsewhere:
            findings.append(f"{name}: listed as tested elsewhere, but has its own tests")
    for package in PACKAGES:
        for path in sorted((root / "tests" / package).rglob("test_*.py")):
            inside = path.relative_to(root / "tests")
            subject = ".".join([*inside.parts[:-1], inside.stem.removeprefix("test_")])
            if subject not in ours and ".".join(inside.parts[:-1]) not in ours:
                findings.append(f"tests/{inside}: tests nothing that exists")
    for name, where in elsewhere.items():
        findings += [f"{name}: listed as tested elsewhere, but is not there"] if name not in ours else []
        findings += [f"{name}: {where} is not there"] if not (root / where).exists() else []
    return findings


def _tested_by_mirror(root: Path, name: str) -> bool:
    *folders, leaf = name.split(".")
    folder = root / "tests" / Path(*folders)
    if (folder / f"test_{leaf}.py").exists():
        return True
    nearby = [*folder.glob("test_*.py"), *(folder.parent.glob("test_*.py") if len(folders) > 2 else ())]
    return any(within(target, (name,)) for path in nearby for target in imports(path.stem, path))


def _has_behaviour(path: Path) -> bool:
    """A module of constants and plain values has none: no function of more than a few statements."""
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(node.body) > 1 + (ast.get_docstring(node) is not None)
        for node in ast.walk(ast.parse(path.read_text()))
    )


_DEFINE: Final = re.compile(r"^#define\s+(?:AMB_|AMBIENT_)?(\w+)\s+(0x[0-9a-fA-F]+|\d+)\b", re.MULTILINE)


def ports(root: Path, expected: Mapping[str, int]) -> list[str]:
    """Each name of `expected` that the eBPF headers define has the same number there, and all are defined."""
    seen: dict[str, set[int]] = {}
    for path in sorted((root / "bpf").rglob("*.[ch]")):
        for key, number in _DEFINE.findall(path.read_text()):
            seen.setdefault(key, set()).add(int(number, 0))
    findings = [f"bpf: {key} is not defined" for key in expected if key not in seen]
    findings += [
        f"bpf: {key} is {sorted(seen[key])}, the model says {number}"
        for key, number in expected.items()
        if key in seen and seen[key] != {number}
    ]
    return findings
