package main

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

type segmentio struct{ settings }

func (s segmentio) do(ctx context.Context, operation string) error {
	broker := s.settings["broker"]
	transport := &kafka.Transport{ClientID: s.settings["id"], MetadataTTL: time.Second}
	dialer := &kafka.Dialer{ClientID: s.settings["id"], Timeout: 5 * time.Second}
	switch operation {
	case "produce":
		w := &kafka.Writer{
			Addr: kafka.TCP(broker), Transport: transport, RequiredAcks: kafka.RequireAll,
			BatchTimeout: time.Millisecond, MaxAttempts: 2, BatchBytes: 900_000,
		}
		defer w.Close()
		var list []kafka.Message
		for i := range s.number("records", 1) {
			for _, t := range s.topics() {
				list = append(list, kafka.Message{Topic: t, Value: record(s.settings, i)})
			}
		}
		if err := w.WriteMessages(ctx, list...); err != nil {
			return err
		}
		for _, t := range s.topics() {
			fmt.Println("produced", t, s.number("records", 1))
		}
		return nil
	case "consume", "group":
		config := kafka.ReaderConfig{
			Brokers: []string{broker}, Topic: s.topics()[0], Dialer: dialer, MaxWait: 200 * time.Millisecond,
			MaxAttempts: 1, StartOffset: kafka.FirstOffset,
		}
		if operation == "group" {
			config.GroupID = s.settings["group"]
		}
		r := kafka.NewReader(config)
		defer r.Close()
		for range s.number("records", 1) {
			if _, err := r.ReadMessage(ctx); err != nil {
				return err
			}
		}
		fmt.Println("consumed", s.settings["topic"], s.number("records", 1))
		return nil
	case "fetch": // a single request, for its error code
		c := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport}
		r, err := c.Fetch(ctx, &kafka.FetchRequest{Topic: s.topics()[0], MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
		if err != nil {
			return err
		}
		return r.Error
	case "create", "delete":
		c := &kafka.Client{Addr: kafka.TCP(broker), Transport: transport}
		if operation == "delete" {
			r, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: s.topics()})
			if err != nil {
				return err
			}
			return r.Errors[s.topics()[0]]
		}
		r, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{
			Topics: []kafka.TopicConfig{{Topic: s.topics()[0], NumPartitions: 1, ReplicationFactor: 1}},
		})
		if err != nil {
			return err
		}
		return r.Errors[s.topics()[0]]
	}
	return unknown(operation)
}
