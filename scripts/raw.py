"""A broker of its own for each measurement, and a raw client: what scripts/growth and
scripts/hostile share."""
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "growth"


# ---- the wire, as far as it is needed -----------------------------------------------------------


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = number << 1 ^ number >> 63
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def batch(value, count=1):
    """A record batch (magic 2) of `count` equal records, without compression."""
    records = b""
    for delta in range(count):
        record = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + b"\0"
        records += varint(len(record)) + record
    now = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", 0, count - 1, now, now, -1, -1, -1, count) + records
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, crc32c(body)) + body


class Client:
    """One connection; one request at a time unless `send` and `receive` are used."""

    def __init__(self, port, timeout=600, source=None):
        # Another source address has ports of its own.
        source = source and (source, 0)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, source)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, key, version, body):
        frame = struct.pack(">hhi", key, version, 7) + string("growth") + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)

    def receive(self):
        size = struct.unpack(">i", self.exactly(4))[0]
        return self.exactly(size)[4:]

    def exactly(self, count):
        parts = []
        while count:
            part = self.socket.recv(min(count, 1 << 20))
            if not part:
                raise SystemExit("the broker closed the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def ask(self, key, version, body):
        self.send(key, version, body)
        return self.receive()

    def create(self, topic, partitions, settings=()):
        configs = b"".join(string(name) + string(value) for name, value in settings)
        topics = struct.pack(">i", 1) + string(topic) + struct.pack(">ihi", partitions, 1, 0)
        topics += struct.pack(">i", len(settings)) + configs
        reply = self.ask(19, 2, topics + struct.pack(">i?", 600_000, False))
        code = struct.unpack_from(">h", reply, 4 + 4 + 2 + len(topic))[0]
        if code:
            raise SystemExit(f"CreateTopics of {topic} failed with error {code}")

    def delete(self, topic):
        self.ask(20, 1, struct.pack(">i", 1) + string(topic) + struct.pack(">i", 600_000))

    def partitions(self, topic):
        """The number of partitions, by a Metadata request."""
        reply = self.ask(3, 4, struct.pack(">i", 1) + string(topic) + b"\0")
        at = 12
        at += 2 + struct.unpack_from(">h", reply, at)[0] + 4  # host, port
        for _ in range(2):  # rack, cluster id
            at += 2 + max(struct.unpack_from(">h", reply, at)[0], 0)
        at += 4 + 4 + 2 + 2 + len(topic) + 1
        return struct.unpack_from(">i", reply, at)[0]

    @staticmethod
    def produce_body(topic, batches, acks=-1):
        body = struct.pack(">hhii", -1, acks, 60_000, 1) + string(topic)
        body += struct.pack(">i", len(batches))
        for partition, records in batches:
            body += struct.pack(">ii", partition, len(records)) + records
        return body

    def produce(self, topic, batches, acks=-1):
        reply = self.ask(0, 3, self.produce_body(topic, batches, acks))
        at = 4 + 2 + len(topic) + 4
        for _ in batches:
            partition, code, _ = struct.unpack_from(">ihq", reply, at)
            if code:
                raise SystemExit(f"produce to {topic}-{partition} failed with error {code}")
            at += 22

    def fetch(self, topic, offset, size=1 << 20):
        body = struct.pack(">iiiib", -1, 100, 1, size, 0) + struct.pack(">i", 1) + string(topic)
        return self.ask(1, 4, body + struct.pack(">iiqi", 1, 0, offset, size))


# ---- the broker ---------------------------------------------------------------------------------


class Broker:
    def __init__(self, options, fresh=True, flags=()):
        self.options, self.flags = options, flags
        self.dir = Path(options.dir) / "data"
        if fresh:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.parent.mkdir(parents=True, exist_ok=True)
        self.log = open(self.dir.parent / "broker.log", "wb")
        self.start()

    def start(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [self.options.binary, "serve", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--data-dir", str(self.dir), "--io", self.options.io]
        command += ["--cores", str(self.options.cores), *self.flags]
        self.log.truncate(0)
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)
        while True:
            try:
                self.client = Client(self.port)
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    raise SystemExit(f"the broker did not start, see {self.log.name}")
                time.sleep(0.001)
        self.client.partitions(TOPIC)
        self.start_ms = (time.perf_counter() - started) * 1000

    def opened(self):
        """What the broker says it did at start: (MB scanned, ms), over all shards."""
        scanned, ms = 0, 0
        for line in Path(self.log.name).read_text(errors="replace").splitlines():
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "scanned_bytes" in words:
                scanned += int(words["scanned_bytes"])
                ms = max(ms, int(words["ms"]))
        return scanned / 1e6, ms

    def stop(self, how=signal.SIGTERM):
        """Seconds until it has ended."""
        self.client.socket.close()
        started = time.perf_counter()
        self.process.send_signal(how)
        self.process.wait()
        return time.perf_counter() - started

    def rss(self, which="VmRSS"):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(which):
                return int(line.split()[1]) * 1024
        raise SystemExit("the broker is gone")

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def settled_rss(self):
        """Resident memory once it stands still."""
        before = -1
        while before != (now := self.rss()):
            before = now
            time.sleep(0.5)
        return now


def fill(broker, partitions, value, per_request=200, acks=-1):
    """One batch to each partition."""
    records = batch(value)
    for first in range(0, partitions, per_request):
        some = range(first, min(first + per_request, partitions))
        broker.client.produce(TOPIC, [(index, records) for index in some], acks)


def percentile(sorted_values, share):
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)]


def latencies(broker, partitions, seconds, connections=4, rate=400):
    """Milliseconds from the intended time of single-record produce requests, acks=all, at a fixed
    rate over all partitions in turn. Raises what a connection raises: no request is left out."""
    records = batch(b"x" * 100)

    def run(index):
        client, turn, results = Client(broker.port), index, []
        begun = time.perf_counter()
        for number in range(int(seconds * rate / connections)):
            intended = begun + number * connections / rate
            wait = intended - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            client.produce(TOPIC, [(turn * 7919 % partitions, records)])
            turn += connections
            results.append((time.perf_counter() - intended) * 1000)
        client.socket.close()
        return results

    with ThreadPoolExecutor(connections) as pool:
        return sorted(value for results in pool.map(run, range(connections)) for value in results)


def allow_files():
    """As many open files as this process may have: its sockets need as many as the broker's."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def build():
    """The broker's program."""
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--bin", "forebay"], cwd=ROOT, check=True)
    return str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release/forebay")
