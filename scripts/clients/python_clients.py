"""confluent-kafka, kafka-python and aiokafka with their default settings against one broker."""
import asyncio
import sys
import time

import confluent_kafka
import kafka
import kafka.admin
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

BOOTSTRAP = sys.argv[1]
PARTITIONS = 4
COUNT = 500


def expect(what, expected, seen):
    if expected != seen:
        sys.exit(f"{what}: expected {expected!r}, saw {seen!r}")


def check_records(what, records, count):
    """records: (partition, offset, key, value, headers, timestamp_ms)."""
    expect(f"{what} count", count, len(records))
    values = sorted(int(value) for _, _, _, value, _, _ in records)
    expect(f"{what} values", list(range(count)), values)
    last = {}
    for partition, offset, key, value, headers, timestamp in records:
        expect(f"{what} key", b"key-" + value, key)
        expect(f"{what} header", [("origin", b"python")], list(headers))
        if abs(time.time() * 1000 - timestamp) > 600_000:
            sys.exit(f"{what}: timestamp {timestamp}")
        previous = last.get(partition)
        if previous is not None:
            expect(f"{what} dense offsets", previous[0] + 1, offset)
            if int(value) <= previous[1]:
                sys.exit(f"{what}: partition {partition} is out of order")
        last[partition] = (offset, int(value))


def confluent():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin.create_topics([NewTopic("confluent", PARTITIONS, 1)])["confluent"].result(10)
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        topic = f"confluent-{codec}"
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(10)
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "compression.type": codec})
        failed = []
        for number in range(COUNT):
            producer.produce(topic, str(number).encode(), b"key-%d" % number,
                             headers=[("origin", b"python")],
                             on_delivery=lambda error, _: failed.append(error) if error else None)
        expect("confluent flush", 0, producer.flush(20))
        expect("confluent delivery", [], failed)
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": BOOTSTRAP, "group.id": f"group-{topic}",
             "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        records, until = [], time.time() + 30
        while len(records) < COUNT and time.time() < until:
            for message in consumer.consume(100, 0.5):
                if message.error():
                    sys.exit(f"confluent: {message.error()}")
                records.append((message.partition(), message.offset(), message.key(),
                                message.value(), message.headers(), message.timestamp()[1]))
        check_records(topic, records, COUNT)
        consumer.commit(asynchronous=False)
        partitions = [confluent_kafka.TopicPartition(topic, p) for p in range(PARTITIONS)]
        committed = consumer.committed(partitions, 10)
        expect("confluent committed", COUNT, sum(p.offset for p in committed))
        consumer.seek(confluent_kafka.TopicPartition(topic, records[0][0], records[0][1]))
        consumer.close()
    resource = ConfigResource(ConfigResource.Type.TOPIC, "confluent")
    config = admin.describe_configs([resource])[resource].result(10)
    expect("confluent default", "604800000", config["retention.ms"].value)
    admin.delete_topics(["confluent"])["confluent"].result(10)
    if "confluent" in admin.list_topics(timeout=10).topics:
        sys.exit("confluent: a deleted topic is still listed")


def kafka_python():
    admin = kafka.admin.KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    admin.create_topics([kafka.admin.NewTopic("kafka-python", PARTITIONS, 1)])
    for round_number, codec in enumerate([None, "gzip", "snappy", "lz4", "zstd"]):
        producer = kafka.KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=codec)
        futures = [producer.send("kafka-python", str(round_number * COUNT + n).encode(),
                                 b"key-%d" % (round_number * COUNT + n),
                                 headers=[("origin", b"python")]) for n in range(COUNT)]
        for future in futures:
            future.get(20)
        producer.close()
    consumer = kafka.KafkaConsumer("kafka-python", bootstrap_servers=BOOTSTRAP,
                                   group_id="kafka-python", auto_offset_reset="earliest",
                                   consumer_timeout_ms=20_000)
    records = []
    for message in consumer:
        records.append((message.partition, message.offset, message.key, message.value,
                        message.headers, message.timestamp))
        if len(records) == 5 * COUNT:
            break
    check_records("kafka-python", records, 5 * COUNT)
    consumer.commit()
    consumer.close()


async def aio():
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    admin.create_topics([NewTopic("aiokafka", PARTITIONS, 1)])["aiokafka"].result(10)
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, enable_idempotence=True)
    await producer.start()
    for number in range(COUNT):
        await producer.send("aiokafka", str(number).encode(), b"key-%d" % number,
                            headers=[("origin", b"python")])
    await producer.stop()
    first, second = [
        AIOKafkaConsumer("aiokafka", bootstrap_servers=BOOTSTRAP, group_id="aiokafka",
                         auto_offset_reset="earliest", client_id=name)
        for name in ("first", "second")]
    await first.start()
    await second.start()
    records, until = {}, time.time() + 40
    # Both are members: one rebalance later each holds half, and together they see everything.
    while time.time() < until and (
            len(records) < COUNT or len(first.assignment()) != 2 or len(second.assignment()) != 2):
        for consumer in (first, second):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                for m in batch:
                    records[m.partition, m.offset] = (
                        m.partition, m.offset, m.key, m.value, m.headers, m.timestamp)
    expect("aiokafka assignment", (2, 2), (len(first.assignment()), len(second.assignment())))
    check_records("aiokafka", [records[k] for k in sorted(records)], COUNT)
    await first.stop()
    await second.stop()


confluent()
print("confluent-kafka: topics, 5 codecs, idempotence, groups, commits, settings")
kafka_python()
print("kafka-python: topics, 5 codecs, groups")
asyncio.run(aio())
print("aiokafka: idempotence, rebalance of two members")
