"""The supervisor with real child processes: small scripts that stand in for director and workers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until
from ztunnel.__main__ import PLACES, claim, drain_deadline

DRIVER = """
import sys
from ztunnel.__main__ import Child, Supervisor
folder, deadline = sys.argv[1], float(sys.argv[2])
names = sys.argv[3:]
family = [Child(n, [sys.executable, "-S", f"{folder}/{n}.py", folder, n]) for n in names]
sys.exit(Supervisor(family, deadline, lambda text: print(text, flush=True)).run())
"""
LIVE = """
import os, signal, sys
folder, name = sys.argv[1:3]
open(f"{folder}/{name}.log", "a").write(f"{os.getpid()}\\n")
signal.pause()
"""
POLITE = LIVE.replace("signal.pause()", "signal.sigwait({signal.SIGTERM}); open(f'{folder}/{name}.end', 'w')").replace(
    "folder, name = ", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); folder, name = "
)
STUBBORN = LIVE.replace("folder, name = ", "signal.signal(signal.SIGTERM, signal.SIG_IGN); folder, name = ")
CONFIG = "import sys; sys.exit(78)"
SHORT = LIVE.replace("signal.pause()", "sys.exit(3)")


class Family:
    def __init__(self, folder: Path, scripts: dict[str, str], deadline: float) -> None:
        self.folder = folder
        for name, script in scripts.items():
            (folder / f"{name}.py").write_text(script)
        argv = [sys.executable, "-c", DRIVER, str(folder), str(deadline), *scripts]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)

    def pids(self, name: str) -> list[int]:
        log = self.folder / f"{name}.log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def make(deadline: float = 5.0, **scripts: str) -> Family:
        made.append(Family(tmp_path, scripts, deadline))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)
        for script in one.folder.glob("*.log"):
            for pid in one.pids(script.stem):
                if (
                    Path(f"/proc/{pid}/cmdline").exists()
                    and str(one.folder) in Path(f"/proc/{pid}/cmdline").read_text()
                ):
                    os.kill(pid, signal.SIGKILL)


def test_a_child_that_dies_is_started_again_at_once(family: Callable[..., Family]) -> None:
    one = family(director=LIVE, worker=LIVE)
    until(lambda: len(one.pids("worker")) == 1 and len(one.pids("director")) == 1)
    os.kill(one.pids("worker")[0], signal.SIGKILL)
    until(lambda: len(one.pids("worker")) == 2)
    assert len(one.pids("director")) == 1
    os.kill(one.pids("director")[0], signal.SIGKILL)
    until(lambda: len(one.pids("director")) == 2)
    assert len(one.pids("worker")) == 2


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(family: Callable[..., Family]) -> None:
    started = time.monotonic()
    one = family(director=LIVE, worker=SHORT)
    until(lambda: len(one.pids("worker")) >= 5)
    # At once, then after 50, 100 and 200 ms.
    assert time.monotonic() - started >= 0.35


def test_a_termination_signal_goes_to_the_director_first_and_the_rest_follow(family: Callable[..., Family]) -> None:
    one = family(director=POLITE, worker=LIVE)
    until(lambda: len(one.pids("worker")) == 1 and len(one.pids("director")) == 1)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(20) == 0
    assert (one.folder / "director.end").exists()
    assert len(one.pids("worker")) == 1


def test_children_that_will_not_end_are_killed(family: Callable[..., Family]) -> None:
    one = family(deadline=-2.5, director=STUBBORN, worker=STUBBORN)
    until(lambda: len(one.pids("worker")) == 1 and len(one.pids("director")) == 1)
    pids = [*one.pids("worker"), *one.pids("director")]
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_unusable_settings_end_everything_with_their_exit_code(family: Callable[..., Family]) -> None:
    one = family(director=CONFIG, worker=LIVE)
    assert one.process.wait(20) == 78
    assert not any(Path(f"/proc/{pid}").exists() for pid in one.pids("worker"))


FORKED = """
import os, signal, sys
from setproctitle import getproctitle
from ztunnel.__main__ import Child, Supervisor
getproctitle()
folder, what = sys.argv[1:3]

def live(arguments):
    with open(f"{folder}/worker.log", "a") as log:
        log.write(f"{os.getpid()} {os.environ['SLOT']} {arguments} {bytes(open('/proc/self/cmdline', 'rb').read())}\\n")
    if what == "raises":
        raise RuntimeError("on purpose")
    if what == "exits":
        return 78
    signal.pause()

tries = iter(range(3 if what == "waits" else 0))

def prepare():
    if next(tries, None) is not None:
        raise OSError("no processes left")
    return live

director = Child("director", ["/bin/sleep", "1000"])
worker = Child("worker", ["python", "-m", "part", "--slot", "7"], {"SLOT": "seven"}, prepare)
sys.exit(Supervisor([director, worker], 0.0, lambda text: print(text, flush=True)).run())
"""


def forked(folder: Path, what: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", FORKED, str(folder), what]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def told(folder: Path) -> list[str]:
    log = folder / "worker.log"
    return log.read_text().splitlines() if log.exists() else []


def test_a_forked_child_is_listed_ended_and_started_again_like_a_spawned_one(tmp_path: Path) -> None:
    with forked(tmp_path, "lives") as process:
        until(lambda: len(told(tmp_path)) == 1)
        pid, rest = told(tmp_path)[0].split(" ", 1)
        assert rest.startswith("seven ['--slot', '7'] b'python -m part --slot 7")
        # Our own signals, which we wait for, must not be blocked in it.
        os.kill(int(pid), signal.SIGTERM)
        until(lambda: len(told(tmp_path)) == 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"worker (pid {pid}) ended with -15" in out
    assert not Path("/proc", told(tmp_path)[1].split()[0]).exists()


def test_a_forked_child_that_raises_says_where_and_is_started_again(tmp_path: Path) -> None:
    with forked(tmp_path, "raises") as process:
        until(lambda: len(told(tmp_path)) >= 2)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert "RuntimeError: on purpose" in out
    assert "ended with 1" in out


def test_unusable_settings_of_a_forked_child_end_everything(tmp_path: Path) -> None:
    with forked(tmp_path, "exits") as process:
        process.communicate(timeout=30)
    assert process.returncode == 78


def test_a_child_that_cannot_be_started_now_is_tried_again_and_the_others_live_on(tmp_path: Path) -> None:
    with forked(tmp_path, "waits") as process:
        until(lambda: len(told(tmp_path)) == 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.count("worker cannot be started: no processes left") == 3


def test_an_unknown_word_on_the_command_line_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-m", "ztunnel", "what"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage" in done.stderr


def test_what_does_not_supervise_imports_nothing_heavy() -> None:
    code = (
        "import sys, ztunnel.__main__;"
        "bad = {'asyncio','socket','subprocess','ssl','grpc','cryptography','dataclasses','typing_extensions'};"
        "print(sorted(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_count_that_is_none_stops_the_start_with_its_name() -> None:
    env = {**os.environ, "ZTUNNEL_WORKER_THREADS": "lots"}
    done = subprocess.run([sys.executable, "-m", "ztunnel"], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 78
    assert "ZTUNNEL_WORKER_THREADS" in done.stderr


@pytest.mark.parametrize("given", [0, 1, -1], ids=["none", "smallest", "unlimited"])
def test_no_process_of_ours_leaves_a_core_with_keys_in_it(tmp_path: Path, given: int) -> None:
    program = (
        "import ztunnel.__main__ as z, pathlib, sys;"
        "z.Supervisor.run = lambda self: print(pathlib.Path('/proc/self/limits').read_text()) or 0;"
        "sys.exit(z.main(['proxy']))"
    )
    env = {**os.environ, "AMBIENT_RUN_DIR": str(tmp_path)}
    # As in a pod, which may raise no limit.
    words = ["prlimit", f"--core={given}", "setpriv", "--bounding-set=-sys_resource", sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    most = 1 if given else 0
    assert re.search(rf"Max core file size +{most} +{most} ", done.stdout)


@pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("1m30s", 90.0), ("250ms", 0.25), ("", 5.0)])
def test_the_director_gets_as_long_as_its_own_settings_say(text: str, seconds: float) -> None:
    assert drain_deadline({"TERMINATION_GRACE_PERIOD_SECONDS": text}) == 2 * seconds
    assert (
        drain_deadline({"TERMINATION_GRACE_PERIOD_SECONDS": text, "AMBIENT_HANDOVER_WAIT": "1m"})
        == max(60.0, seconds) + seconds
    )


def test_two_ztunnels_of_a_node_have_a_directors_socket_each(tmp_path: Path) -> None:
    env = {"AMBIENT_RUN_DIR": str(tmp_path / "run")}
    first, lock = claim(env)
    second, other = claim(env)
    assert first == str(tmp_path / "run" / "director.sock")
    assert second != first
    os.close(lock)
    assert claim(env)[0] == first
    # What was left behind by force may have workers that still look for a director there.
    os.close(other)
    Path(second).touch()
    assert claim(env)[0] == second


def test_what_workers_of_an_earlier_ztunnel_counted_is_not_there_for_the_next(tmp_path: Path) -> None:
    env = {"AMBIENT_RUN_DIR": str(tmp_path)}
    path, lock = claim(env)
    other, _ = claim(env)
    for socket in (path, other):
        Path(f"{socket}.tunnels").touch()
        Path(f"{socket}.outgoing").touch()
    os.close(lock)
    again, _ = claim(env)
    assert again == path
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == [
        "director-1.sock.lock",
        "director-1.sock.outgoing",
        "director-1.sock.tunnels",
        "director.sock.lock",
    ]


def test_there_is_an_end_to_how_many_ztunnels_share_a_folder(tmp_path: Path) -> None:
    env = {"AMBIENT_RUN_DIR": str(tmp_path)}
    held = [claim(env)[1] for _ in range(PLACES)]
    with pytest.raises(OSError, match="run in"):
        claim(env)
    for lock in held:
        os.close(lock)
