"""What measures: librdkafka's rdkafka_performance and our loadgen, each on the client's CPU.

A driver is called with a broker and returns what it saw, as numbers by name.
"""

import json
import os
import re
import resource
import subprocess
import tempfile
from pathlib import Path

from . import Failure

PATIENCE_S = 180


class Client:
    """Runs drivers pinned to one CPU and knows what CPU time they took."""

    def __init__(self, programs, cpu):
        self.programs, self.cpu = programs, cpu
        self.cpu_s = 0.0

    def run(self, command, statuses=(0,)):
        """Runs a driver to its end, which has one of these statuses, and returns what it printed."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S,
                preexec_fn=lambda: os.sched_setaffinity(0, {self.cpu}))
        except subprocess.TimeoutExpired as late:
            raise Failure(f"not done after {PATIENCE_S} s: {' '.join(command)}") from late
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if done.returncode not in statuses:
            tail = "\n".join(done.stdout.splitlines()[-10:])
            raise Failure(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
        return done.stdout

    def rdkafka(self, broker, *words):
        command = [self.programs.rdkafka_performance, "-b", broker.bootstrap]
        for setting in ("broker.address.family=v4", "log_level=3"):
            command += ["-X", setting]
        # 1 is no failure by itself: two of its threads count what was produced, without a lock, and
        # now and then one message is missing. What was delivered is counted right, and read below.
        return self.run([*command, *words], statuses=(0, 1))

    def produce(self, broker, topic, messages, size, acks, *words):
        """librdkafka writes so many messages; linger and batch sizes are its defaults (5 ms,
        1 MB)."""
        out = self.rdkafka(broker, "-P", "-t", topic, "-s", str(size), "-c", str(messages),
                           "-a", str(acks), "-X", "linger.ms=5", *words)
        found = re.findall(r"(\d+) delivered \(offset -?\d+, (\d+) failed\) in (\d+)ms", out)
        if not found:
            raise Failure(f"rdkafka_performance says nothing of deliveries:\n{out[-500:]}")
        delivered, failed, ms = map(int, found[-1])
        if delivered != messages or failed:
            raise Failure(f"{broker.name}: {delivered} of {messages} delivered, {failed} failed")
        return of_messages(messages, size, ms / 1e3)

    def single(self, broker, topic, messages, size, acks):
        """librdkafka writes one message per request, 5 requests in flight."""
        return self.produce(broker, topic, messages, size, acks, "-p", "0", "-X", "linger.ms=0",
                            "-X", "batch.num.messages=1", "-X", "max.in.flight=5")

    def consume(self, broker, topic, messages, size, partitions):
        """librdkafka reads so many messages from the beginning."""
        wanted = [word for each in range(partitions) for word in ("-p", str(each))]
        out = self.rdkafka(broker, "-C", "-t", topic, *wanted, "-o", "beginning",
                           "-c", str(messages))
        found = re.findall(r"(\d+) messages \((\d+) bytes\) consumed in (\d+)ms", out)
        if not found or int(found[-1][0]) < messages:
            raise Failure(f"{broker.name}: not all of {messages} messages came:\n{out[-500:]}")
        consumed, _, ms = map(int, found[-1])
        return of_messages(consumed, size, ms / 1e3)

    def loadgen(self, broker, mode, topic, *words):
        """Our load generator; the numbers are those of its JSON."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "result.json")
            self.run([self.programs.loadgen, mode, "--bootstrap", broker.bootstrap,
                      "--broker-pid", str(broker.pid), "--topic", topic, "--json", str(path),
                      *words])
            return json.loads(path.read_text())


def of_messages(messages, size, seconds):
    """Rates of so many messages in so many seconds."""
    return {
        "seconds": seconds,
        "messages": messages,
        "gb": messages * size / 1e9,
        "messages_per_s": messages / seconds,
        "mb_per_s": messages * size / 1e6 / seconds,
    }
