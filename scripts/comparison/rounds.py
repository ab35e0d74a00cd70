"""The alternating rounds of one row: A, B, A, B, ..., the first perhaps not counted."""

import os
import statistics
import time

from . import machine


class Bench:
    """The running brokers and the client; what all rows share."""

    def __init__(self, brokers, client, scale):
        self.brokers, self.client, self.scale = brokers, client, scale
        self.serial = 0

    def next_name(self):
        """A topic name that was not used before."""
        self.serial += 1
        return f"compare-{self.serial}"

    def measure(self, broker, work):
        """Runs `work`, and adds to its numbers who used the CPUs meanwhile."""
        os.sync()
        cpus = broker.cpus | {self.client.cpu}
        own = {each.pid for each in self.brokers.values()}
        cpu, others = machine.Cpu.of(broker.pid), sum(machine.Cpu.of(pid).total_s for pid in own)
        busy, begun = machine.busy_s(cpus), time.monotonic()
        numbers = work()
        wall_s = time.monotonic() - begun
        broker.check()
        cpu = machine.Cpu.of(broker.pid).since(cpu)
        others = sum(machine.Cpu.of(pid).total_s for pid in own) - others
        strangers = machine.busy_s(cpus) - busy - others - self.client.cpu_s
        # librdkafka's program takes its time to begin and to end; loadgen's warm-up is work, too.
        span_s = numbers["seconds"] if "gb" in numbers else wall_s
        numbers |= {
            "broker_cpu_s": cpu.total_s,
            "broker_system_s": cpu.system_s,
            "broker_core": min(1.0, cpu.total_s / span_s),
            "client_core": min(1.0, self.client.cpu_s / span_s),
            "strangers_core": max(0.0, strangers / wall_s),
        }
        if "gb" in numbers:
            numbers["cpu_s_per_gb"] = cpu.total_s / numbers["gb"]
        return numbers


def run(row, bench, count):
    """All rounds of a row: for each contestant the list of its rounds' numbers."""
    contestants = [each for each in row.contestants if each.broker in bench.brokers]
    results = {each.name: [] for each in contestants}
    for turn in range(-row.warm_ups, count):
        for each in contestants:
            numbers = row.run(bench, each)
            if turn >= 0:
                results[each.name].append(numbers)
    return results


def medians(rounds):
    """The median of every number over the rounds."""
    names = rounds[0].keys()
    return {name: statistics.median(each[name] for each in rounds) for name in names}


def starts(bench, count):
    """Starts every broker again, in turns, on its data, and takes the time to the first answer."""
    results = {name: [] for name in bench.brokers if name in ("forebay", "kafka")}
    for _ in range(count):
        for name, numbers in results.items():
            broker = bench.brokers[name]
            broker.stop()
            broker.start()
            numbers.append({"start_ms": broker.started_ms})
    return results


def note_idle_memory(bench):
    """Keeps what the brokers hold resident before any load, once they are at rest."""
    time.sleep(2)
    for broker in bench.brokers.values():
        broker.rss_idle_mb = machine.rss_mb(broker.pid)


def memory(bench):
    """Resident memory before the load, and at most under it."""
    return {
        name: [{
            "rss_idle_mb": broker.rss_idle_mb,
            "rss_load_mb": machine.rss_mb(broker.pid, "VmHWM"),
        }]
        for name, broker in bench.brokers.items() if name in ("forebay", "kafka")
    }
