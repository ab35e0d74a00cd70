#!/usr/bin/env python3
"""Reads the order events with an ordinary Kafka client, in another language, and does two things:
revenue per minute, and an audit of the log. It shares no code with the other services.

    pip install confluent-kafka
    python3 consumer.py

The audit fails (exit code 1) if an event cannot be read, if a customer's orders are out of order,
if an event names a cause that was not there before it, or with another correlation. An event that
comes twice is counted and no fault: the outbox promises at least once. So is an order of a version
that this reader does not know.
"""
import argparse
import datetime
import json
import sys
import uuid
from collections import Counter

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

UTC = datetime.timezone.utc
FIELDS = {"id", "type", "version", "time_ms", "correlation_id", "causation_id", "data"}


def upcast(version, data):
    """OrderPlaced of any known version as version 3, one step at a time; None if unknown."""
    if version == 1:
        data = {**data, "quantity": 1, "unit_cents": data["amount_cents"]}
        version = 2
    if version == 2:
        data = {**data, "currency": "EUR"}
        version = 3
    return data if version == 3 else None


class Audit:
    """What the log must keep, whoever wrote it."""

    def __init__(self):
        self.correlation_of = {}  # event id -> correlation id, also the inbox of this reader
        self.last_number = {}  # key -> of the last order; None if that is not known
        self.revenue = Counter()  # (minute, currency) -> cents
        self.orders = self.items = self.events = self.twice = self.unknown = 0
        self.faults = []

    def take(self, place, key, value):
        self.events += 1
        try:
            self.take_event(place, key, json.loads(value))
        except Exception as error:  # whatever one event holds, it does not end the audit
            self.faults.append(f"{place}: cannot be read: {error!r}")
            self.last_number[key] = None

    def take_event(self, place, key, event):
        if not FIELDS <= event.keys():
            raise ValueError(f"without {FIELDS - event.keys()}")
        event_id = uuid.UUID(event["id"])
        if event_id in self.correlation_of:
            self.twice += 1
            return
        self.correlation_of[event_id] = event["correlation_id"]
        cause = event["causation_id"]
        if cause and self.correlation_of.get(uuid.UUID(cause)) != event["correlation_id"]:
            self.faults.append(f"{place}: {event['type']} without the cause that it names")
        if event["type"] == "OrderPlaced":
            self.order_placed(place, key, event)

    def order_placed(self, place, key, event):
        order = upcast(event["version"], event["data"])
        if order is None:
            self.unknown += 1
            self.last_number[key] = None
            return
        customer, number, quantity = order["customer"], order["number"], order["quantity"]
        if key != customer.encode():
            self.faults.append(f"{place}: the key is {key!r} and not {customer!r}")
        minute = datetime.datetime.fromtimestamp(event["time_ms"] // 60_000 * 60, UTC)
        self.revenue[minute, order["currency"]] += quantity * order["unit_cents"]
        self.orders += 1
        self.items += quantity
        before = self.last_number.get(key, 0)
        if before is not None and number != before + 1:
            self.faults.append(f"{place}: order {number} of {customer} after {before}")
        self.last_number[key] = number

    def report(self):
        for (minute, currency), cents in sorted(self.revenue.items()):
            print(f"{minute:%Y-%m-%d %H:%M}  {money({currency: cents})}")
        total = Counter()
        for (_, currency), cents in self.revenue.items():
            total[currency] += cents
        print(f"total  {self.orders} orders: {self.items} items, {money(total)}")
        print(f"log    {self.events} events, {self.twice} came twice, {self.unknown} of unknown versions")
        for fault in self.faults:
            print(f"FAULT  {fault}")


def money(sums):
    return ", ".join(f"{currency} {cents // 100}.{cents % 100:02}"
                     for currency, cents in sorted(sums.items())) or "no money"


def read(bootstrap, topic):
    """The audit of everything that is in the topic now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}-audit",
                         "enable.auto.commit": False, "enable.partition.eof": True,
                         "log_level": 0})  # what it cannot reach is said below
    try:
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
    except KafkaException as error:
        sys.exit(f"consumer.py: no broker answers at {bootstrap}: {error.args[0].str()}")
    if not partitions:
        sys.exit(f"consumer.py: there is no topic {topic} at {bootstrap}")
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    audit, ended = Audit(), set()
    while len(ended) < len(partitions):
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is None:
            place = f"partition {message.partition()} offset {message.offset()}"
            audit.take(place, message.key(), message.value())
        elif message.error().code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
        else:
            print(f"waiting for the broker: {message.error()}", file=sys.stderr)
    consumer.close()
    return audit


def main():
    parser = argparse.ArgumentParser(description="Revenue per minute, and an audit of the log")
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="orders")
    arguments = parser.parse_args()
    audit = read(arguments.bootstrap, arguments.topic)
    audit.report()
    sys.exit(1 if audit.faults else 0)


if __name__ == "__main__":
    main()
