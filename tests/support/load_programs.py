"""The programs that load tests run inside pods, as text for `python3 -c`: standard library only, both families.

PEER serves, by a first line "VERB [TOKEN] [NUMBER...]", on 7200:
  echo                     everything comes back, and the end after it
  take TOKEN N             reads N octets, then waits; never answers
  give TOKEN N             sends N octets (a counted pattern) while it listens for the end
  hold TOKEN               reads no more
  crop N | drop | clip N M | snap N | late | trim N M
                           it resets: after N octets of the request, after the request, after N of M octets of the
                           response, in the same breath with N octets, after its own orderly end; `trim` ends orderly
                           after N of M (the sabotage)
  seen TOKEN               what became of that connection: octets it sent us and "open", "end" or "reset"
On 7201 it resets whom it accepts, on 7202 it takes whoever says nothing and counts how they end (`seen silent`).

The others are clients. Each prints one line of JSON.
"""

from __future__ import annotations

from typing import Final

MAIN_PORT: Final = 7200
RESET_PORT: Final = 7201
SILENT_PORT: Final = 7202
CLOSED_PORT: Final = 7299

PEER: Final = r"""
import asyncio, json, resource, socket, struct
RST = struct.pack("ii", 1, 0)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
SEEN, HELD = {}, set()
BLOCK = bytes(range(256)) * 256
def reset(transport):
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    transport.abort()
class Peer(asyncio.Protocol):
    def __init__(self):
        self.head, self.verb, self.got, self.left, self.entry, self.full = b"", "", 0, 0, None, False
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        if not self.verb:
            self.head += data
            line, found, data = self.head.partition(b"\n")
            if not found:
                return
            self.begin(*line.decode().split())
        self.got += len(data)
        if self.entry is not None:
            self.entry["got"] = self.got
        if self.verb == "echo":
            self.transport.write(data)
        elif self.verb == "crop" and self.got >= self.number:
            reset(self.transport)
        elif self.verb == "drop" and self.got >= 1000:
            reset(self.transport)
    def begin(self, verb, *words):
        self.verb = verb
        if verb in ("take", "give", "hold"):
            self.entry = SEEN[words[0]] = {"got": 0, "how": "open"}
            words = words[1:]
        self.number = int(words[0]) if words and words[0].isdigit() else 0
        if verb == "give":
            self.left = self.number
            self.pour()
        elif verb == "hold":
            self.transport.pause_reading()
            HELD.add(self)
        elif verb in ("clip", "trim"):
            self.transport.write(BLOCK[: self.number])
            loop.call_later(0.02, reset if verb == "clip" else lambda t: t.close(), self.transport)
        elif verb == "snap":
            self.transport.write(BLOCK[: self.number])
            reset(self.transport)
        elif verb == "late":
            self.transport.write(BLOCK[:1000])
            self.transport.write_eof()
            loop.call_later(0.1, reset, self.transport)
        elif verb == "seen":
            self.transport.write(json.dumps(SEEN.get(words[0], {})).encode() + b"\n")
            self.transport.close()
        elif verb == "release":
            for peer in HELD:
                peer.transport.resume_reading()
            HELD.clear()
            self.transport.close()
    def pour(self):
        while self.left and not self.full and not self.transport.is_closing():
            part = min(self.left, len(BLOCK))
            self.left -= part
            self.transport.write(BLOCK[:part])
        if not self.left and not self.transport.is_closing():
            self.transport.write_eof()
    def pause_writing(self):
        self.full = True
    def resume_writing(self):
        self.full = False
        if self.verb == "give":
            self.pour()
    def eof_received(self):
        if self.entry is not None and self.entry["how"] == "open":
            self.entry["how"] = "end"
        return self.verb == "give" and bool(self.left)
    def connection_lost(self, error):
        HELD.discard(self)
        # asyncio tells no error when it comes while a write goes on; then something is left to write.
        if self.entry is not None and (error is not None or self.left):
            self.entry["how"] = "reset"
class Resetter(asyncio.Protocol):
    def connection_made(self, transport):
        reset(transport)
class Silent(asyncio.Protocol):
    def eof_received(self):
        SEEN["silent"]["end"] += 1
    def connection_lost(self, error):
        SEEN["silent"]["reset"] += error is not None
SEEN["silent"] = {"end": 0, "reset": 0}
async def serve():
    global loop
    loop = asyncio.get_running_loop()
    for kind, port in ((Peer, 7200), (Resetter, 7201), (Silent, 7202)):
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
        await loop.create_server(kind, sock=sock, backlog=4096)
    print("listening", flush=True)
    await asyncio.Event().wait()
asyncio.run(serve())
"""

SEQUENCE: Final = r"""
import collections, json, os, socket, sys, time
times, *hosts = sys.argv[1:]
failed, worst, began = collections.Counter(), 0.0, time.monotonic()
for number in range(int(times)):
    start = time.monotonic()
    text = b"%d %s" % (number, os.urandom(64).hex().encode())
    try:
        with socket.create_connection((hosts[number % len(hosts)], 7200), 60) as s:
            s.sendall(b"echo\n" + text)
            s.shutdown(socket.SHUT_WR)
            back = b""
            while data := s.recv(4096):
                back += data
            if back != text:
                failed["wrong or missing bytes"] += 1
    except OSError as error:
        failed[str(error)] += 1
    worst = max(worst, time.monotonic() - start)
print(json.dumps(dict(tried=int(times), failed=failed, worst_s=worst, seconds=time.monotonic() - began)))
"""
"""SEQUENCE TIMES HOST...: one connection after the other, each echoes a line and ends both ways."""

CROWD: Final = r"""
import asyncio, collections, json, os, resource, sys, time
count, rounds, *hosts = sys.argv[1:]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
failed = collections.Counter()
async def one(number, gate, everybody, begin):
    writer = None
    try:
        async with gate:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(hosts[number % len(hosts)], 7200), 60)
            writer.write(b"echo\n")
            for round in range(int(rounds) + 1):
                text = b"%d %d %s\n" % (number, round, os.urandom(32).hex().encode())
                writer.write(text)
                if await asyncio.wait_for(reader.readline(), 60) != text:
                    raise OSError("wrong or missing bytes")
                if not round:
                    everybody.append(number)
                    gate.release()
                    await begin.wait()
                    await gate.acquire()
    except (OSError, asyncio.TimeoutError) as error:
        failed[str(error) or type(error).__name__] += 1
        everybody.append(number)
    return writer
async def main():
    gate, everybody, begin, began = asyncio.Semaphore(200), [], asyncio.Event(), time.monotonic()
    tasks = [asyncio.create_task(one(n, gate, everybody, begin)) for n in range(int(count))]
    while len(everybody) < int(count):
        await asyncio.sleep(0.05)
    opened = time.monotonic() - began
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    begin.set()
    for writer in await asyncio.gather(*tasks):
        if writer is not None:
            writer.close()
    print(json.dumps(dict(tried=int(count), failed=failed, opened_s=opened, seconds=time.monotonic() - began)))
asyncio.run(main())
"""
"""CROWD COUNT ROUNDS HOST...: all open at once; says "open", waits for a line, then each echoes ROUNDS lines more."""

TRICKLE: Final = r"""
import hashlib, json, os, socket, sys, threading, time
host, size = sys.argv[1], int(sys.argv[2])
data, began = os.urandom(size), time.monotonic()
s = socket.create_connection((host, 7200), 60)
s.settimeout(60)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.sendall(b"echo\n")
def up():
    for at in range(size):
        s.send(data[at : at + 1])
    s.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=up); thread.start()
back = bytearray()
while part := s.recv(1):
    back += part
thread.join()
print(json.dumps(dict(size=len(back), whole=bytes(back) == data, seconds=time.monotonic() - began)))
"""
"""TRICKLE HOST SIZE: byte by byte out and back."""

RESETS: Final = r"""
import collections, json, os, socket, struct, sys, time
host, times, sabotage = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["sabotage"]
RST = struct.pack("ii", 1, 0)
wrong, tried = collections.Counter(), collections.Counter()
def dial(port=7200):
    s = socket.create_connection((host, port), 60)
    s.settimeout(60)
    return s
def kill(s):
    if not sabotage:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    s.close()
def seen(token):
    with dial() as s:
        s.sendall(b"seen %s\n" % token.encode())
        return json.loads(s.makefile("rb").readline() or b"{}")
def must_hear_a_reset(stage, token):
    deadline = time.monotonic() + (5 if sabotage else 60)
    while (how := seen(token).get("how", "nothing")) != "reset" and time.monotonic() < deadline:
        time.sleep(0.01)
    if how != "reset":
        wrong[f"{stage}: the server saw {how}"] += 1
def drained(s):
    count = 0
    while data := s.recv(65536):
        count += len(data)
    return count
def client(stage, line, payload, read=0, half=False):
    token = os.urandom(6).hex()
    s = dial()
    s.sendall(line.format(token).encode() + b"\n" + payload)
    if half:
        s.shutdown(socket.SHUT_WR)
    while read > 0:
        read -= len(s.recv(read)) or 1 << 40
    if not line.startswith("give"):
        while seen(token).get("got", -1) < len(payload):
            time.sleep(0.005)
    kill(s)
    must_hear_a_reset(stage, token)
def server(stage, port, request, more=b"", expect=0):
    try:
        with dial(port) as s:
            s.sendall(request)
            for _ in range(16):
                s.sendall(more)
            got = drained(s)
            wrong[f"{stage}: a clean end after {got} octets"] += 1
    except (ConnectionError, BrokenPipeError):
        pass
    except OSError as error:
        wrong[f"{stage}: {error}"] += 1
def late(stage):
    try:
        with dial() as s:
            s.sendall(b"late\n")
            if drained(s) != 1000:
                wrong[f"{stage}: part of the response is missing"] += 1
            for _ in range(3000):
                s.sendall(b"x")
                time.sleep(0.01)
            wrong[f"{stage}: the client never heard of it"] += 1
    except (ConnectionError, BrokenPipeError):
        pass
def silent(stage, wait):
    before = seen("silent")
    s = dial(7202)
    time.sleep(wait)
    kill(s)
    deadline = time.monotonic() + (60 if sabotage else 0.05)
    while (after := seen("silent"))["end"] == before["end"] and time.monotonic() < deadline:
        time.sleep(0.01)
    if after["end"] != before["end"]:
        wrong[f"{stage}: the server saw an orderly end"] += 1
CASES = {
    "client, right after the connect": lambda name: silent(name, 0),
    "client, before it said anything": lambda name: silent(name, 0.05),
    "client, mid-request": lambda name: client(name, "take {} 100000", b"q" * 50000),
    "client, after the request": lambda name: client(name, "take {} 1000", b"q" * 1000),
    "client, mid-response": lambda name: client(name, "give {} 50000000", b"", read=50000),
    "client, mid-response after its own end": lambda name: client(name, "give {} 50000000", b"", 50000, True),
    "nobody listens": lambda name: server(name, 7299, b"echo\n"),
    "server, at the accept": lambda name: server(name, 7201, b""),
    "server, mid-request": lambda name: server(name, 7200, b"crop 50000\n", b"q" * 65536),
    "server, before the response": lambda name: server(name, 7200, b"drop\n" + b"q" * 1000),
    "server, mid-response": lambda name: server(name, 7200, b"%s 20000 100000\n" % (b"trim" if sabotage else b"clip")),
    "server, right behind a part of the response": lambda name: server(name, 7200, b"snap 20000\n"),
    "server, after its own end": late,
}
for _ in range(times):
    for name, case in CASES.items():
        tried[name] += 1
        try:
            case(name)
        except (ConnectionError, TimeoutError) as error:
            wrong[f"{name}: {error}"] += 1
print(json.dumps(dict(tried=tried, wrong=wrong)))
"""
"""RESETS HOST TIMES [sabotage]: from either side at every stage; with sabotage the client and the server's response
end orderly instead, which every check must take for wrong."""

STALL: Final = r"""
import hashlib, json, resource, socket, sys, threading, time
host, readers, writers, size = sys.argv[1], *map(int, sys.argv[2:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def dial(line):
    s = socket.create_connection((host, 7200), 60)
    s.sendall(line)
    return s
slow = [dial(b"give r%d %d\n" % (n, size)) for n in range(readers)]
held = [dial(b"hold w%d\n" % n) for n in range(writers)]
block, sent, at = bytes(range(256)) * 256, [0] * writers, time.monotonic()
for s in held:
    s.setblocking(False)
moved = time.monotonic()
while time.monotonic() - moved < 1.0:
    for n, s in enumerate(held):
        try:
            sent[n] += s.send(block[sent[n] % 256 : 65536])
            moved = time.monotonic()
        except BlockingIOError:
            pass
    time.sleep(0.002)
print(json.dumps(dict(sent=sum(sent))), flush=True)
how = sys.stdin.readline().strip()
result = dict(whole=0, wrong=0)
if how == "read":
    pattern = hashlib.blake2b(block * (size // len(block)) + block[: size % len(block)]).hexdigest()
    def read(s):
        digest = hashlib.blake2b()
        try:
            s.settimeout(60)
            while data := s.recv(1 << 18):
                digest.update(data)
        except OSError:
            pass
        result["whole" if digest.hexdigest() == pattern else "wrong"] += 1
        s.close()
    threads = [threading.Thread(target=read, args=(s,)) for s in slow]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(json.dumps(result), flush=True)
sys.stdin.readline()
"""
"""STALL HOST READERS WRITERS SIZE: readers do not read what is given, writers fill what is held; says when nothing
moves any more. A line "read" makes the readers read on and check, anything else not; a second line ends it."""
