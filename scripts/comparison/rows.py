"""The rows of the table: what is done, who takes part, and what forebay must reach.

A contestant is a broker in one role, such as Kafka with every message flushed. Sizes are those of a
full run; `--quick` takes a part of them and leaves out the rows that are not quick.
"""

from collections.abc import Callable
from dataclasses import dataclass

# Kafka's behaviour on forebay: acks=all is answered before the sync.
CACHED = ("write.caching=true",)
# And forebay's on Kafka: every message is flushed before the answer.
FLUSHED = ("flush.messages=1",)

PARTITIONS = 4


@dataclass(frozen=True)
class Contestant:
    """A broker in one role: settings of the topic and the acks that are asked for."""

    name: str
    broker: str
    acks: str = "1"
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What forebay must reach, by the medians of all contestants. `value` may fail with KeyError if
    who it needs did not take part."""

    text: str
    value: Callable
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value):
        low = self.at_least is not None and value < self.at_least
        high = self.at_most is not None and value > self.at_most
        return not low and not high


@dataclass(frozen=True)
class Row:
    """One line of the table. `run(bench, contestant)` is one round of it."""

    name: str
    work: str
    driver: str
    run: Callable
    contestants: tuple[Contestant, ...]
    targets: tuple[Target, ...]
    # Numbers to show, in this order.
    shown: tuple[str, ...]
    quick: bool = True
    # Rounds of each contestant that are not counted; loadgen has its own warm-up.
    warm_ups: int = 1


def ours(number, at_least=None, at_most=None, text=None):
    """A target for a number of forebay's own."""
    limit = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    return Target(text or f"{number} {limit}", lambda medians: medians["forebay"][number],
                  at_least, at_most)


def times(number, other, at_least, text):
    """A target for forebay's number in relation to that of another."""
    return Target(text, lambda medians: medians["forebay"][number] / medians[other][number],
                  at_least)


def client_share(medians):
    """How near the driver is to what it can do at all: it has no CPU left, or is as fast as against
    a broker that does nothing. Both contain its own start and end, hence not quite 1."""
    shares = [medians["forebay"]["client_core"]]
    if "discard" in medians:
        rate = medians["forebay"]["messages_per_s"]
        shares.append(rate / medians["discard"]["messages_per_s"])
    return max(shares)


CLIENT_BOUND = Target("the client is the limit: at 0.9 of what it can do", client_share, 0.9)


def produce(messages, size):
    def run(bench, contestant):
        broker = bench.brokers[contestant.broker]
        count = int(messages * bench.scale)
        with broker.topic(bench.next_name(), PARTITIONS, contestant.settings) as topic:
            return bench.measure(broker, lambda: bench.client.produce(
                broker, topic, count, size, contestant.acks))
    return run


def single(messages, size):
    def run(bench, contestant):
        broker = bench.brokers[contestant.broker]
        # The bare ring and forebay are done before the clock has seen much.
        count = int(messages * bench.scale / (5 if contestant.broker == "kafka" else 1))
        with broker.topic(bench.next_name(), 1, contestant.settings) as topic:
            return bench.measure(broker, lambda: bench.client.single(
                broker, topic, count, size, contestant.acks))
    return run


def consume(messages, size):
    def run(bench, contestant):
        broker = bench.brokers[contestant.broker]
        count = int(messages * bench.scale)
        with broker.topic(bench.next_name(), PARTITIONS, contestant.settings) as topic:
            bench.client.produce(broker, topic, count, size, contestant.acks)
            return bench.measure(broker, lambda: bench.client.consume(
                broker, topic, count, size, PARTITIONS))
    return run


def loadgen(mode, seconds, *words, partitions=1):
    def run(bench, contestant):
        broker = bench.brokers[contestant.broker]
        acks = {"-1": "all"}.get(contestant.acks, contestant.acks)
        span = max(2, seconds * bench.scale)
        warm_up = max(1, 3 * bench.scale)
        with broker.topic(bench.next_name(), partitions, contestant.settings) as topic:
            return bench.measure(broker, lambda: of_loadgen(bench.client.loadgen(
                broker, mode, topic, "--acks", acks, "--warm-up", f"{warm_up:g}s",
                "--duration", f"{span:g}s", *words)))
    return run


def of_loadgen(document):
    """The numbers of a row from loadgen's document."""
    result = document["result"]
    latency = result["latency_us"]
    return {
        "seconds": result["elapsed_s"],
        "messages": result["records"],
        "messages_per_s": result["records_per_s"],
        "mb_per_s": result["mb_per_s"],
        "mean_ms": latency["mean"] / 1e3,
        "p50_ms": latency["p50"] / 1e3,
        "p99_ms": latency["p99"] / 1e3,
        "p999_ms": latency["p999"] / 1e3,
        "unsent": result["unsent"],
    }


# What busy-poll adds, where one record at a time is waited for.
POLLING = Contestant("forebay polling", "forebay-poll")
POLLING_SYNCED = Contestant("forebay polling", "forebay-poll", "-1")
FOREBAY, KAFKA = Contestant("forebay", "forebay"), Contestant("kafka", "kafka")
BARE, DISCARD = Contestant("bare", "bare"), Contestant("discard", "discard")
FOREBAY_CACHED = Contestant("forebay", "forebay", "-1", CACHED)
FOREBAY_SYNCED = Contestant("forebay", "forebay", "-1")
KAFKA_ALL = Contestant("kafka", "kafka", "-1")
KAFKA_FLUSHED = Contestant("kafka flushed", "kafka", "-1", FLUSHED)

RATES = ("messages_per_s", "mb_per_s", "cpu_s_per_gb")
LATENCIES = ("messages_per_s", "mean_ms", "p50_ms", "p99_ms", "p999_ms")

ROWS = (
    Row("produce-1k", "produce 1 KiB, acks=1, linger 5, 4 partitions", "rdkafka_performance",
        produce(2_000_000, 1024), (FOREBAY, KAFKA, BARE, DISCARD),
        (CLIENT_BOUND, ours("mb_per_s", at_least=750), ours("cpu_s_per_gb", at_most=0.55)), RATES),
    Row("produce-1k-all", "produce 1 KiB, acks=-1 without sync, linger 5, 4 partitions",
        "rdkafka_performance", produce(2_000_000, 1024), (FOREBAY_CACHED, KAFKA_ALL),
        (CLIENT_BOUND, ours("mb_per_s", at_least=750), ours("cpu_s_per_gb", at_most=0.55)), RATES,
        quick=False),
    Row("produce-100", "produce 100 B, acks=1, linger 5, 4 partitions", "rdkafka_performance",
        produce(6_000_000, 100), (FOREBAY, KAFKA, BARE, DISCARD),
        (CLIENT_BOUND, ours("cpu_s_per_gb", at_most=0.7)), RATES),
    Row("produce-100-all", "produce 100 B, acks=-1 without sync, linger 5, 4 partitions",
        "rdkafka_performance", produce(6_000_000, 100), (FOREBAY_CACHED, KAFKA_ALL),
        (CLIENT_BOUND, ours("cpu_s_per_gb", at_most=0.7)), RATES, quick=False),
    Row("produce-synced", "produce 1 KiB, acks=-1, synced before the answer",
        "rdkafka_performance", produce(1_000_000, 1024), (FOREBAY_SYNCED, KAFKA_FLUSHED),
        (times("mb_per_s", "kafka flushed", 2.5, "at least 2.5 times Kafka"),), RATES),
    Row("single", "one 1 KiB record per request, 1 connection, 5 in flight",
        "rdkafka_performance", single(250_000, 1024), (FOREBAY, KAFKA, BARE, DISCARD),
        (CLIENT_BOUND, times("messages_per_s", "kafka", 5, "at least 5 times Kafka")), RATES),
    Row("requests", "one 1 KiB record per request, 64 connections, depth 1", "loadgen",
        loadgen("requests", 6, "--connections", "64", "--depth", "1", "--record-size", "1KiB"),
        (FOREBAY, KAFKA, BARE),
        (times("messages_per_s", "kafka", 5, "at least 5 times Kafka"),
         times("messages_per_s", "bare", 0.6, "at least 0.6 of the bare ring")),
        ("messages_per_s", "cpu_us_per_request", "p50_ms", "p99_ms"), warm_ups=0),
    Row("consume", "consume 1 KiB, hot", "rdkafka_performance", consume(1_500_000, 1024),
        (FOREBAY, KAFKA), (ours("cpu_s_per_gb", at_most=0.08),), RATES),
    Row("end-to-end-1", "produce to consume, one 100 B record at a time, acks=1", "loadgen",
        loadgen("end-to-end", 6, "--record-size", "100"), (FOREBAY, POLLING, KAFKA),
        (ours("p50_ms", at_most=0.12), ours("p99_ms", at_most=0.4)), LATENCIES, warm_ups=0),
    Row("end-to-end-all", "the same, acks=all, synced (Kafka: not synced, and flushed)", "loadgen",
        loadgen("end-to-end", 6, "--record-size", "100"),
        (FOREBAY_SYNCED, POLLING_SYNCED, KAFKA_ALL, KAFKA_FLUSHED),
        (ours("p50_ms", at_most=0.35), ours("p99_ms", at_most=2)), LATENCIES, warm_ups=0),
    Row("open-loop", "50,000 records/s of 1 KiB, acks=all, synced (Kafka: not synced)", "loadgen",
        loadgen("produce", 10, "--rate", "50000", "--record-size", "1KiB", "--partitions", "4",
                partitions=PARTITIONS),
        (FOREBAY_SYNCED, KAFKA_ALL),
        (ours("p99_ms", at_most=10), ours("p999_ms", at_most=25)), (*LATENCIES, "unsent"), warm_ups=0),
)

START = Row("start", "start to the first metadata answer", "a socket", None, (FOREBAY, KAFKA),
            (ours("start_ms", at_most=50),), ("start_ms",))
MEMORY = Row("memory", "resident memory", "/proc", None, (FOREBAY, KAFKA),
             (ours("rss_idle_mb", at_most=12), ours("rss_load_mb", at_most=80)),
             ("rss_idle_mb", "rss_load_mb"))
