"""What this machine is, who uses its CPUs, and its congestion control."""

import os
import platform
import random
import re
import socket
import struct
import time
from contextlib import contextmanager
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def facts(directory):
    """What the figures depend on, by name."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "filesystem": filesystem(directory),
        "congestion_control": CONGESTION.read_text().strip(),
        "governor": governor(),
        "page_cache": page_cache(),
    }


def governor():
    """How the first CPU's frequency is set, if this can be seen."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not visible"


def page_cache():
    """Whether something (DAMON) pages out what was not used for a while, free memory or not."""
    try:
        for monitor in Path("/sys/kernel/mm/damon/admin/kdamonds").glob("[0-9]*"):
            actions = [path.read_text() for path in monitor.glob("contexts/*/schemes/*/action")]
            if (monitor / "state").read_text() == "on\n" and "pageout\n" in actions:
                return "paged out while there is memory (DAMON)"
    except PermissionError:
        return "unknown: not for this user to see"
    return "kept until memory is needed"


def filesystem(directory):
    """Type of the filesystem that holds a directory."""
    device = os.stat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            return right.split()[0]
    return "unknown"


@contextmanager
def cubic():
    """Congestion control as the targets were measured with, for as long as this lasts; yields a
    warning or None. bbr paces, which costs loopback connections more than half of their speed."""
    before = CONGESTION.read_text().strip()
    warning, changed = None, False
    if before != "cubic":
        try:
            CONGESTION.write_text("cubic")
            changed = True
            warning = f"congestion control is cubic for this run, and {before} again after it"
        except OSError:
            warning = (f"congestion control is {before}, the targets are for cubic: run as root, "
                       "or first: sysctl -w net.ipv4.tcp_congestion_control=cubic")
    try:
        yield warning
    finally:
        if changed:
            CONGESTION.write_text(before)


class Cpu:
    """CPU seconds that a process, its threads included, has used so far."""

    def __init__(self, user_s, system_s):
        self.user_s, self.system_s = user_s, system_s

    @classmethod
    def of(cls, pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S)

    def since(self, before):
        return Cpu(self.user_s - before.user_s, self.system_s - before.system_s)

    @property
    def total_s(self):
        return self.user_s + self.system_s


def busy_s(cpus):
    """Seconds that these CPUs were not idle since the machine started, whoever used them."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{cpu}" for cpu in cpus}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / TICKS_PER_S


def rss_mb(pid, field="VmRSS"):
    """Resident memory of a process in MB (10^6 bytes), now or (VmHWM) at most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def free_port():
    """A TCP port that nobody listens on, below those that connections get: a broker that starts
    again must find it free."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for_metadata(port, process, patience_s=60):
    """Waits until a broker answers Metadata (version 1, all topics), and returns when it did."""
    request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", -1)
    request = struct.pack(">i", len(request)) + request
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request)
                if len(connection.recv(16)) > 8:
                    return time.monotonic()
        except OSError:
            pass
        time.sleep(0.001)
    return None
