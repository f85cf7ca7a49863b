package main

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

type saramas struct{ settings }

func (s saramas) config() *sarama.Config {
	c := sarama.NewConfig()
	c.ClientID = s.settings["id"]
	c.Version = sarama.MaxVersion
	c.Producer.Return.Successes = true
	c.Producer.Retry.Max = 1
	c.Metadata.Retry.Max = 2
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	return c
}

func (s saramas) do(ctx context.Context, operation string) error {
	brokers := []string{s.settings["broker"]}
	switch operation {
	case "produce":
		p, err := sarama.NewSyncProducer(brokers, s.config())
		if err != nil {
			return err
		}
		defer p.Close()
		var list []*sarama.ProducerMessage
		for i := range s.number("records", 1) {
			for _, t := range s.topics() {
				list = append(list, &sarama.ProducerMessage{Topic: t, Value: sarama.ByteEncoder(record(s.settings, i))})
			}
		}
		if err := p.SendMessages(list); err != nil {
			return err
		}
		for _, t := range s.topics() {
			fmt.Println("produced", t, s.number("records", 1))
		}
		return nil
	case "consume":
		return s.consume(ctx, brokers)
	case "group":
		g, err := sarama.NewConsumerGroup(brokers, s.settings["group"], s.config())
		if err != nil {
			return err
		}
		defer g.Close()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		h := &member{settings: s.settings, done: cancel}
		failed := make(chan error, 1)
		go func() {
			for err := range g.Errors() {
				select {
				case failed <- err:
					cancel()
				default:
				}
			}
		}()
		if err := g.Consume(ctx, s.topics(), h); err != nil {
			return err
		}
		select {
		case err := <-failed:
			return err
		default:
		}
		fmt.Println("consumed", s.settings["topic"], h.n)
		return nil
	case "create", "delete":
		a, err := sarama.NewClusterAdmin(brokers, s.config())
		if err != nil {
			return err
		}
		defer a.Close()
		if operation == "delete" {
			return a.DeleteTopic(s.topics()[0])
		}
		return a.CreateTopic(s.topics()[0], &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}, false)
	}
	return unknown(operation)
}

func (s saramas) consume(ctx context.Context, brokers []string) error {
	c, err := sarama.NewConsumer(brokers, s.config())
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.ConsumePartition(s.topics()[0], 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer p.Close()
	for n := 0; n < s.number("records", 1); n++ {
		select {
		case <-p.Messages():
		case err := <-p.Errors():
			return err.Err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Println("consumed", s.settings["topic"], s.number("records", 1))
	return nil
}

// member consumes as many records as were asked for.
type member struct {
	settings
	n    int
	done func()
}

func (*member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*member) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			session.MarkMessage(message, "")
			if m.n++; m.n >= m.number("records", 1) {
				session.Commit()
				time.AfterFunc(0, m.done)
				return nil
			}
		case <-session.Context().Done():
			return nil
		}
	}
}
