// kafkajs with its default settings.
const { Kafka, CompressionTypes, logLevel } = require("kafkajs");

const count = 500;
const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR });

function expect(what, expected, seen) {
  if (expected !== seen) throw new Error(`${what}: expected ${expected}, saw ${seen}`);
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: "node", numPartitions: 3 }] });
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const messages = [...Array(count).keys()].map((n) => ({
      key: `key-${n}`, value: String(n), headers: { origin: "node" } }));
    await producer.send({ topic: "node", messages, compression });
  }
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: "node" });
  await consumer.connect();
  await consumer.subscribe({ topic: "node", fromBeginning: true });
  const next = {};
  let seen = 0;
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`timeout after ${seen} records`)), 40000).unref();
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        try {
          expect("offset", next[partition] ?? 0, Number(message.offset));
          next[partition] = Number(message.offset) + 1;
          expect("key", `key-${message.value}`, message.key.toString());
          expect("header", "node", message.headers.origin.toString());
        } catch (error) {
          reject(error);
        }
        if (++seen === 2 * count) resolve();
      },
    });
  });
  await consumer.disconnect();
  const offsets = await admin.fetchOffsets({ groupId: "node", topics: ["node"] });
  const committed = offsets[0].partitions.reduce((sum, p) => sum + Number(p.offset), 0);
  expect("committed", 2 * count, committed);
  await admin.deleteTopics({ topics: ["node"] });
  await admin.disconnect();
  console.log("kafkajs: topics, idempotence, gzip, group, commits");
}

main().catch((error) => { console.error(`kafkajs: ${error.message}`); process.exit(1); });
