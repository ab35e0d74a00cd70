// franz-go, segmentio/kafka-go and sarama with their default settings against one broker.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const count = 500

var bootstrap = os.Args[1]

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func expect(what string, expected, seen any) {
	if expected != seen {
		must(what, fmt.Errorf("expected %v, saw %v", expected, seen))
	}
}

// numbers checks that the values are 0 to count-1, each once.
func numbers(what string, values []int) {
	sort.Ints(values)
	expect(what+" count", count, len(values))
	for i, value := range values {
		expect(what+" value", i, value)
	}
}

func franz(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumerGroup("franz"),
		kgo.ConsumeTopics("franz"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must("franz-go", err)
	admin := kadm.NewClient(client)
	_, err = admin.CreateTopic(ctx, 3, 1, nil, "franz")
	must("franz-go create", err)
	for i := range count {
		record := &kgo.Record{Topic: "franz", Key: []byte("k" + strconv.Itoa(i)),
			Value: []byte(strconv.Itoa(i)), Headers: []kgo.RecordHeader{{Key: "origin", Value: []byte("go")}}}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) { must("franz-go produce", err) })
	}
	must("franz-go flush", client.Flush(ctx))
	var values []int
	for len(values) < count {
		fetches := client.PollFetches(ctx)
		must("franz-go fetch", fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			expect("franz-go key", "k"+string(r.Value), string(r.Key))
			expect("franz-go header", "go", string(r.Headers[0].Value))
			value, _ := strconv.Atoi(string(r.Value))
			values = append(values, value)
		})
	}
	numbers("franz-go", values)
	must("franz-go commit", client.CommitUncommittedOffsets(ctx))
	lags, err := admin.Lag(ctx, "franz")
	must("franz-go lag", err)
	expect("franz-go lag", int64(0), lags["franz"].Lag.Total())
	client.Close()
	fmt.Println("franz-go: topic, idempotence, group, commit, lag")
}

func segmentio(ctx context.Context) {
	writer := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: "segmentio", AllowAutoTopicCreation: true,
		RequiredAcks: kafka.RequireAll, Compression: kafka.Lz4, BatchTimeout: 10 * time.Millisecond}
	var messages []kafka.Message
	for i := range count {
		messages = append(messages, kafka.Message{Key: []byte("k"), Value: []byte(strconv.Itoa(i))})
	}
	err := writer.WriteMessages(ctx, messages...)
	for tries := 0; err == kafka.UnknownTopicOrPartition && tries < 20; tries++ {
		time.Sleep(100 * time.Millisecond)
		err = writer.WriteMessages(ctx, messages...)
	}
	must("kafka-go write", err)
	must("kafka-go close", writer.Close())
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, GroupID: "segmentio",
		Topic: "segmentio", StartOffset: kafka.FirstOffset, MaxWait: 200 * time.Millisecond})
	var values []int
	for len(values) < count {
		message, err := reader.ReadMessage(ctx)
		must("kafka-go read", err)
		value, _ := strconv.Atoi(string(message.Value))
		values = append(values, value)
	}
	numbers("kafka-go", values)
	must("kafka-go close", reader.Close())
	fmt.Println("kafka-go: automatic topic, lz4, group")
}

func saramaClient() {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = sarama.CompressionZSTD
	admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
	must("sarama admin", err)
	must("sarama create", admin.CreateTopic("sarama", &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false))
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	must("sarama producer", err)
	for i := range count {
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "sarama", Value: sarama.StringEncoder(strconv.Itoa(i))})
		must("sarama send", err)
		expect("sarama offset", int64(i), offset)
	}
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	must("sarama consumer", err)
	partition, err := consumer.ConsumePartition("sarama", 0, sarama.OffsetOldest)
	must("sarama consume", err)
	var values []int
	for len(values) < count {
		select {
		case message := <-partition.Messages():
			value, _ := strconv.Atoi(string(message.Value))
			values = append(values, value)
		case <-time.After(20 * time.Second):
			must("sarama", fmt.Errorf("timeout after %d records", len(values)))
		}
	}
	numbers("sarama", values)
	must("sarama delete", admin.DeleteTopic("sarama"))
	fmt.Println("sarama: topics, zstd, offsets")
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	franz(ctx)
	segmentio(ctx)
	saramaClient()
}
