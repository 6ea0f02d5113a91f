"""The supervisor: starts one director and N workers, starts again whoever dies, ends them all when told to.

It holds no state worth losing and never touches sockets or certificates. It imports what workers run, runs none of it,
and forks the others: their code is in memory once, and a new worker is there in milliseconds. The director, which has
most to import, is forked first, as soon as there is what both of them run. As PID 1 it also reaps orphans.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import glob
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn

from ztunnel import openssl

if TYPE_CHECKING:
    from ztunnel.compiled import Form

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 2.0
SETTLED: Final = 10.0
"""Seconds a child must live for its next death to count as the first again."""
EXIT_CONFIG: Final = 78
"""A child ends with this (EX_CONFIG) when its settings are unusable: starting it again would change nothing."""
SPARE: Final = 3.0
"""Seconds beyond the director's own drain deadline before children are killed."""

PLACES: Final = 8
"""How many ztunnels may share a run directory: the one that serves, and some that let connections end."""

_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
_HELP: Final = """usage: ztunnel [proxy | version | help]

Runs the node proxy: one director and ZTUNNEL_WORKER_THREADS workers. Settings come from the environment
(NODE_NAME, XDS_ADDRESS, CA_ADDRESS, INPOD_UDS, ...), see docs.
"""


Run = Callable[[list[str]], int]
"""Arguments to exit code: what a process does."""


class Child:
    """One process that should be running, with `env` added to our environment. `pid` is 0 while it is not.

    With `prepare` it is forked instead of being spawned: that is called here each time, and says what is then called in
    the child, with the arguments after `-m MODULE`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        prepare: Callable[[], Run] | None = None,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env or {})
        self.prepare = prepare
        self.pid = 0
        self.started = 0.0
        self.start_at = 0.0
        self.deaths = 0

    def start(self, now: float, *words: str) -> None:
        """Spawn it with clean signal dispositions; our blocked signals are not inherited. `words` are added."""
        argv = [*self.argv, *words]
        env = {**os.environ, **self.env}
        self.started = now
        if self.prepare is None:
            self.pid = os.posix_spawn(argv[0], argv, env, setsigmask=(), setsigdef=(signal.SIGTERM, signal.SIGINT))
        else:
            run = self.prepare()
            self.pid = os.fork() or _become(run, argv, env)

    def died(self, now: float) -> None:
        """Plan the next start: at once after a long life, then 50 ms doubling to 2 s."""
        self.pid = 0
        self.deaths = 1 if now - self.started >= SETTLED else self.deaths + 1
        self.start_at = now + (min(LONGEST_DELAY, FIRST_DELAY * 2 ** (self.deaths - 2)) if self.deaths > 1 else 0.0)


class Supervisor:
    """`children[0]` is the director: a termination signal goes to it alone, it drains the workers."""

    def __init__(self, children: Sequence[Child], deadline: float, say: Callable[[str], None]) -> None:
        self._children = list(children)
        self._deadline = deadline
        self._say = say

    def run(self) -> int:
        """Until a termination signal (exit code 0), or EXIT_CONFIG when a child has unusable settings."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while True:
            now = time.monotonic()
            waiting = [child for child in self._children if not child.pid]
            for child in [child for child in waiting if child.start_at <= now]:
                # A new director has to know whether workers outlived the last one: they hold the pods' sockets.
                living = sum(1 for worker in self._children[1:] if worker.pid)
                try:
                    child.start(now, *([f"--heirs={living}"] if child is self._children[0] else ()))
                    waiting.remove(child)
                except OSError as error:  # no memory or no process to be had: the others must not end with us
                    child.died(now)
                    self._say(f"{child.name} cannot be started: {error}")
            wake = min((child.start_at for child in waiting), default=now + 3600.0)
            received = signal.sigtimedwait(_SIGNALS, max(0.0, wake - now))
            if self._reap() == EXIT_CONFIG:
                self._end(0.0)
                return EXIT_CONFIG
            if received is not None and received.si_signo != signal.SIGCHLD:
                self._end(self._deadline + SPARE)
                return 0

    def _reap(self) -> int:
        """Collect every dead child, ours or an orphan's; returns EXIT_CONFIG if one of ours asked to stop."""
        verdict = 0
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return verdict
            if not pid:
                return verdict
            for child in self._children:
                if child.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    child.died(time.monotonic())
                    self._say(f"{child.name} (pid {pid}) ended with {code}")
                    verdict = verdict or (EXIT_CONFIG if code == EXIT_CONFIG else 0)

    def _end(self, patience: float) -> None:
        """Let the director drain; what still lives after `patience` seconds is ended by pid."""
        director, *workers = self._children
        if director.pid and patience:
            os.kill(director.pid, signal.SIGTERM)
            self._wait([director], patience)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            living = [child for child in (director, *workers) if child.pid]
            for child in living:
                os.kill(child.pid, sign)
            self._wait(living, 1.0)

    def _wait(self, children: Sequence[Child], seconds: float) -> None:
        until = time.monotonic() + seconds
        self._reap()
        while any(child.pid for child in children) and (left := until - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._reap()


def _become(run: Run, argv: list[str], env: dict[str, str]) -> NoReturn:
    """What a forked child does with the rest of its life; it is listed like a spawned one."""
    code = 1
    try:
        from setproctitle import setproctitle

        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.environ.update(env)
        setproctitle(" ".join(argv))
        code = run(argv[argv.index("-m") + 2 :])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def claim(env: dict[str, str]) -> tuple[str, int]:
    """A path for the director's socket that no other ztunnel of the node uses, ours for as long as the descriptor is
    open: while one hands over to the next there are two. A path that was left behind by force comes first, for its
    workers may still look for a director there; what those counted beside it goes. Raises OSError."""
    run_dir = _run_dir(env)
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    paths = [os.path.join(run_dir, f"director{'' if not n else f'-{n}'}.sock") for n in range(PLACES)]
    for path in sorted(paths, key=lambda path: not os.path.exists(path)):
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        for left in glob.glob(f"{glob.escape(path)}.*"):
            if left != f"{path}.lock":
                with suppress(OSError):  # they are hints
                    os.unlink(left)
        return path, lock
    raise OSError(f"{PLACES} ztunnels run in {run_dir} already")


def _run_dir(env: dict[str, str]) -> str:
    return env.get("AMBIENT_RUN_DIR") or "/var/run/ambient-ztunnel"


def children(env: dict[str, str], director_socket: str) -> list[Child]:
    """The processes of one ztunnel. Raises ValueError for a worker count that is none."""
    raw = env.get("ZTUNNEL_WORKER_THREADS") or "0"
    cores = len(os.sched_getaffinity(0))
    share = raw.removesuffix("%")
    if not share.isascii() or not share.isdigit() or int(share) > 256:
        raise ValueError(f"ZTUNNEL_WORKER_THREADS: {raw!r}: expected 0..256 or a percentage")
    count = max(1, round(cores * int(share) / 100)) if raw.endswith("%") else int(share) or cores
    python = [sys.executable, "-m"]
    found = [Child("director", [*python, "ztunnel.director", "--supervised"])]
    # Who says which configuration OpenSSL is to read, says which TLS suites there are.
    suites = {"OPENSSL_CONF": env.get("OPENSSL_CONF") or os.path.join(os.path.dirname(__file__), "tls", "openssl.cnf")}
    for slot in range(count):
        argv = [*python, "ztunnel.worker", "--slot", str(slot), "--socket", director_socket]
        found.append(Child(f"worker {slot}", argv, suites))
    return found


def _director(env: Mapping[str, str], lock: int) -> tuple[Run, Form]:
    """What a forked director runs, all imported that it has in common with workers, and in which form that is. `env`,
    `lock`: as for `_worker`."""
    with _added(env):
        from ztunnel.shared import load

        form = load()
    # Nothing of it is garbage, and a collector that looks at it would give every child a copy of its own.
    gc.freeze()

    def direct(arguments: list[str]) -> int:
        os.close(lock)
        # What else it imports has no place in a worker.
        from ztunnel.director.app import main as direct

        return direct(arguments)

    return direct, form


def _worker(env: Mapping[str, str], lock: int, form: Form) -> Run:
    """What a forked worker runs, all imported that it needs. `env` is what its environment has beside ours, `lock` what
    it must not hold when we are gone."""
    with _added(env):
        from ztunnel.worker.__main__ import main, prepare

        running = prepare(form)
    gc.collect()
    gc.freeze()

    def work(arguments: list[str]) -> int:
        os.close(lock)
        return main(arguments, running)

    return work


@contextmanager
def _added(env: Mapping[str, str]) -> Iterator[None]:
    """Our own environment has this as well meanwhile."""
    ours = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        for name in env.keys() - ours.keys():
            del os.environ[name]


def drain_deadline(env: dict[str, str]) -> float:
    """Upper bound of what the director will take to hand over and drain (it reads the same variables exactly)."""
    drain = _seconds(env, "CONNECTION_TERMINATION_DEADLINE") or _seconds(env, "TERMINATION_GRACE_PERIOD_SECONDS") or 5.0
    return drain + max(drain, _seconds(env, "AMBIENT_HANDOVER_WAIT"))


def _seconds(env: dict[str, str], name: str) -> float:
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "ms": 0.001}
    parts = re.findall(r"([0-9.]+)([a-z]*)", env.get(name, ""))
    return sum(float(number) * units.get(unit, 1.0) for number, unit in parts)


def _say(text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    sys.stderr.write(f"{stamp}.{time.time_ns() // 1000 % 1_000_000:06d}Z\twarn\tsupervisor\t{text}\t\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else "proxy"
    if command in ("help", "--help", "-h"):
        sys.stdout.write(_HELP)
        return 0
    if command in ("version", "--version"):
        from ztunnel import VERSION

        sys.stdout.write(f"ztunnel {VERSION}\n")
        return 0
    if command != "proxy":
        sys.stderr.write(f"ztunnel: unknown command {command!r}\n{_HELP}")
        return 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Keys never reach a disk, not in a core either. 1, not 0: that holds where cores are piped to a program, too. A
    # limit of 0 that we were given cannot be raised without CAP_SYS_RESOURCE.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    most = 1 if hard else 0
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    env = dict(os.environ)
    try:
        newer = openssl.environment(env, _run_dir(env))
        if newer:
            # The dynamic linker reads its variables when a process begins.
            os.execve(sys.executable, sys.orig_argv, {**env, **newer})
        director_socket, lock = claim(env)
        family = children(env, director_socket)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"ztunnel: {error}\n")
        return EXIT_CONFIG if isinstance(error, ValueError) else 1
    # Not needed by a process that is about to be replaced.
    from setproctitle import getproctitle

    # Has our arguments found in memory, where forked children write theirs: a changed environment lies elsewhere.
    getproctitle()
    os.environ["AMBIENT_DIRECTOR_SOCKET"] = director_socket
    director, *workers = family
    first = functools.cache(functools.partial(_director, workers[0].env, lock))
    then = functools.cache(lambda: _worker(workers[0].env, lock, first()[1]))
    director.prepare = lambda: first()[0]
    for worker in workers:
        worker.prepare = then
    return Supervisor(family, drain_deadline(env), _say).run()


if __name__ == "__main__":
    sys.exit(main())
