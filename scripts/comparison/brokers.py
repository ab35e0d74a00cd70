"""What is measured: brokers that are started on the same CPUs, given topics, watched and stopped.

Every process ends, and every directory goes, when its `with` block does.
"""

import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from . import Failure, machine

STOP_S = 30
JVM = ("-server -Xms1g -Xmx1g -Djava.awt.headless=true "
       "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn").split()
# Kafka's start script asks for this, but one CPU is served best by what the JVM chooses there.
STOCK_COLLECTOR = ("-XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 "
                   "-XX:+ExplicitGCInvokesConcurrent").split()
COLLECTOR = ["-XX:+UseSerialGC"]


class Broker:
    """A process that speaks Kafka's protocol, and how it is started again."""

    name = ""

    def __init__(self, programs, directory, cpus):
        self.programs, self.cpus = programs, cpus
        self.directory = directory / self.name
        self.process = None
        self.port = None
        self.started_ms = None
        self.rss_idle_mb = None

    def command(self):
        raise NotImplementedError

    def prepare(self):
        """What has to be done once, before the first start."""

    @property
    def pid(self):
        return self.process.pid

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        """Starts it and waits for its first answer, whose time since the start is kept."""
        if self.port is None:
            self.directory.mkdir()
            self.port = machine.free_port()
            self.prepare()
        log = self.directory / "log"
        with log.open("w") as out:
            begun = time.monotonic()
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus))
        answered = machine.wait_for_metadata(self.port, self.process)
        if answered is None:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            raise Failure(f"{self.name} does not answer; the end of its log:\n{tail}")
        self.started_ms = (answered - begun) * 1e3

    def stop(self):
        """Asks it to end; kills it if it does not."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def check(self):
        """Fails if the process is gone."""
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended on its own: see {self.directory / 'log'}")

    @contextmanager
    def topic(self, name, partitions, settings=()):
        """A topic for one round; its files are gone before the next begins, so that nobody is
        measured while another's data is written back."""
        configs = [word for setting in settings for word in ("--config", setting)]
        self.run_tool("create", name, "--partitions", str(partitions), *configs)
        try:
            yield name
        finally:
            self.run_tool("delete", name)
            self.wait_for_space()

    def run_tool(self, action, topic, *words):
        command = [self.programs.forebay, "topic", action, topic, *words,
                   "--bootstrap", self.bootstrap]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"{self.name}: {' '.join(command[1:4])}: {done.stdout.strip()}")

    def wait_for_space(self):
        deadline = time.monotonic() + 60
        while bytes_below(self.directory / "data") > 64 << 20:
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} does not remove the files of deleted topics")
            time.sleep(0.1)


class Forebay(Broker):
    """forebay, one shard on each CPU."""

    name = "forebay"
    flags = ()

    def command(self):
        # One CPU is a range too: a number alone would be a count.
        cores = ",".join(f"{cpu}-{cpu}" for cpu in sorted(self.cpus))
        return [self.programs.forebay, "serve", "--listen", self.bootstrap,
                "--data-dir", str(self.directory / "data"), "--cores", cores,
                "--log-level", "warn", *self.flags]


class ForebayPolling(Forebay):
    """forebay that looks for work before it blocks: what busy-poll adds."""

    name = "forebay-poll"
    flags = ("--poll-us", "100")


class Kafka(Broker):
    """Apache Kafka, one KRaft node. Threads, buffers and collector are the best found for one
    CPU."""

    name = "kafka"
    collector = COLLECTOR
    # Fewer threads than the defaults of 3 and 8 have less to switch between on one CPU, and the
    # system knows better buffers than 100 KiB.
    tuned = {
        "num.network.threads": 1,
        "num.io.threads": 2,
        "socket.send.buffer.bytes": -1,
        "socket.receive.buffer.bytes": -1,
    }
    # What one node without a cluster needs, and deleted files at once.
    settings = {
        "log.segment.delete.delay.ms": 0,
        "log.cleaner.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
    }

    def java(self, *words):
        return [self.programs.java, *words]

    def command(self):
        return self.java(*JVM, *self.collector, "-cp", self.programs.class_path, "kafka.Kafka",
                         str(self.directory / "server.properties"))

    def prepare(self):
        controller = machine.free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.directory / "data",
        } | self.settings | self.tuned
        properties = self.directory / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        tool = self.java("-Xmx256m", "-cp", self.programs.class_path, "kafka.tools.StorageTool")
        identity = "Zm9yZWJheS1jb21wYXJlMA"
        done = subprocess.run([*tool, "format", "-t", identity, "-c", str(properties)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failure(f"Kafka does not format its directory: {done.stdout.strip()}")


class StockKafka(Kafka):
    """Apache Kafka with its own defaults, to see what the tuning is worth."""

    collector = STOCK_COLLECTOR
    tuned = {}


class Bare(Broker):
    """The bare ring of benches/bare: every topic seems to be there, nothing is kept."""

    name = "bare"
    flags = ()

    def command(self):
        return [self.programs.bare, "--listen", self.bootstrap, "--dir", str(self.directory),
                *self.flags]

    @contextmanager
    def topic(self, name, partitions, settings=()):
        yield name
        # Only its end frees the file. The kernel lets go of a ring's listener some time later,
        # hence the other port.
        self.stop()
        self.port = machine.free_port()
        self.start()


class Discard(Bare):
    """The bare ring that only receives and answers: what the client can do at most."""

    name = "discard"
    flags = ("--discard",)


KINDS = {kind.name: kind for kind in (Forebay, ForebayPolling, Kafka, Bare, Discard)}


@contextmanager
def running(kinds, programs, directory, cpus):
    """All these brokers, started, by name."""
    brokers = {kind.name: kind(programs, directory, cpus) for kind in kinds}
    try:
        for broker in brokers.values():
            broker.start()
        yield brokers
    finally:
        for broker in brokers.values():
            broker.stop()
            shutil.rmtree(broker.directory, ignore_errors=True)


def bytes_below(directory):
    """Allocated bytes of all files below a directory; files that just go count as nothing."""
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.stat(Path(folder, file)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total
