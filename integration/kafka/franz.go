package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

type franz struct{ settings }

func (f franz) options(more ...kgo.Opt) []kgo.Opt {
	o := append([]kgo.Opt{kgo.SeedBrokers(f.settings["broker"]), kgo.ClientID(f.settings["id"])}, more...)
	if ca := f.settings["ca"]; ca != "" {
		roots := x509.NewCertPool()
		if text, err := os.ReadFile(ca); err == nil {
			roots.AppendCertsFromPEM(text)
		}
		config := &tls.Config{RootCAs: roots}
		if pair, err := tls.LoadX509KeyPair(f.settings["certificate"], f.settings["key"]); err == nil {
			config.Certificates = []tls.Certificate{pair}
		}
		o = append(o, kgo.DialTLSConfig(config))
	}
	if user := f.settings["user"]; user != "" {
		mechanism := plain.Auth{User: user, Pass: f.settings["password"]}.AsMechanism()
		if f.settings["mechanism"] == "scram" {
			mechanism = scram.Auth{User: user, Pass: f.settings["password"]}.AsSha256Mechanism()
		}
		o = append(o, kgo.SASL(mechanism))
	}
	return o
}

func (f franz) do(ctx context.Context, operation string) error {
	switch operation {
	case "produce":
		return f.produce(ctx, f.options(f.spread(), kgo.AllowAutoTopicCreation()))
	case "produce0":
		return f.produce(ctx, f.options(kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()))
	case "transaction":
		return f.transaction(ctx)
	case "consume":
		return f.consume(ctx, f.options(kgo.ConsumeTopics(f.topics()...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	case "group":
		return f.consume(ctx, f.options(kgo.ConsumeTopics(f.topics()...), kgo.ConsumerGroup(f.settings["group"]), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	case "group848":
		ctx = context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true) //nolint:staticcheck // the library's way
		return f.consume(ctx, f.options(kgo.WithContext(ctx), kgo.ConsumeTopics(f.topics()...), kgo.ConsumerGroup(f.settings["group"]), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	case "topics":
		return f.admin(ctx, func(a *kadm.Client) error {
			list, err := a.ListTopics(ctx)
			for _, name := range list.Names() {
				fmt.Println("topic", name)
			}
			return err
		})
	case "id":
		return f.admin(ctx, func(a *kadm.Client) error {
			list, err := a.ListTopics(ctx, f.topics()...)
			for _, t := range list {
				fmt.Printf("id %x\n", t.ID[:])
			}
			return err
		})
	case "create":
		return f.admin(ctx, func(a *kadm.Client) error {
			for _, t := range f.topics() {
				if _, err := a.CreateTopic(ctx, int32(f.number("partitions", 1)), int16(f.number("replicas", 1)), nil, t); err != nil {
					return err
				}
			}
			return nil
		})
	case "delete":
		return f.admin(ctx, func(a *kadm.Client) error { _, err := a.DeleteTopic(ctx, f.topics()[0]); return err })
	case "acl":
		return f.admin(ctx, func(a *kadm.Client) error {
			b := kadm.NewACLs().Topics(f.topics()...).ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead).Allow("User:evil").AllowHosts("*")
			list, err := a.CreateACLs(ctx, b)
			for _, r := range list {
				if r.Err != nil {
					return r.Err
				}
			}
			return err
		})
	case "raw":
		return f.raw(ctx)
	case "streams":
		return f.streams(ctx)
	case "load-produce", "load-consume":
		return f.load(ctx, operation == "load-produce")
	}
	return unknown(operation)
}

// spread puts records into all partitions in turn, if that is asked for.
func (f franz) spread() kgo.Opt {
	if f.settings["spread"] != "" {
		return kgo.RecordPartitioner(kgo.RoundRobinPartitioner())
	}
	return kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))
}

func (f franz) admin(_ context.Context, do func(*kadm.Client) error) error {
	c, err := kgo.NewClient(f.options()...)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(kadm.NewClient(c))
}

func (f franz) records() (list []*kgo.Record) {
	for i := range f.number("records", 1) {
		for _, t := range f.topics() {
			list = append(list, &kgo.Record{Topic: t, Value: record(f.settings, i)})
		}
	}
	return list
}

func (f franz) produce(ctx context.Context, options []kgo.Opt) error {
	c, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer c.Close()
	return f.report(c.ProduceSync(ctx, f.records()...))
}

// report says of each topic how many records went.
func (f franz) report(results kgo.ProduceResults) error {
	count := map[string]int{}
	var failed error
	for _, r := range results {
		if r.Err == nil {
			count[r.Record.Topic]++
		} else if failed == nil {
			failed = fmt.Errorf("topic %s: %w", r.Record.Topic, r.Err)
		}
	}
	for topic, n := range count {
		fmt.Println("produced", topic, n)
	}
	return failed
}

func (f franz) transaction(ctx context.Context) error {
	c, err := kgo.NewClient(f.options(kgo.TransactionalID(f.settings["transaction"]))...)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.BeginTransaction(); err != nil {
		return err
	}
	if err := f.report(c.ProduceSync(ctx, f.records()...)); err != nil {
		_ = c.AbortBufferedRecords(ctx)
		_ = c.EndTransaction(ctx, kgo.TryAbort)
		return err
	}
	return c.EndTransaction(ctx, kgo.TryCommit)
}

func (f franz) consume(ctx context.Context, options []kgo.Opt) error {
	c, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer c.Close()
	count := map[string]int{}
	for n := 0; n < f.number("records", 1); {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s: %w", e.Topic, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) { n++; count[r.Topic]++ })
	}
	for topic, n := range count {
		fmt.Println("consumed", topic, n)
	}
	if f.settings["group"] != "" {
		if err := c.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
		fmt.Println("committed")
	}
	return nil
}

// raw produces to a topic by an id that it was told, asking nobody before.
func (f franz) raw(ctx context.Context) error {
	c, err := kgo.NewClient(f.options(kgo.RetryTimeout(0))...)
	if err != nil {
		return err
	}
	defer c.Close()
	var id [16]byte
	if _, err := fmt.Sscanf(f.settings["uuid"], "%x", (*hex)(&id)); err != nil {
		return err
	}
	r := kmsg.NewPtrFetchRequest()
	r.MaxWaitMillis, r.MinBytes, r.SessionEpoch = 200, 0, -1
	t := kmsg.NewFetchRequestTopic()
	t.TopicID = id
	p := kmsg.NewFetchRequestTopicPartition()
	p.PartitionMaxBytes = 1 << 20
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	response, err := c.Broker(f.number("node", 1)).Request(ctx, r)
	if err != nil {
		return err
	}
	answer := response.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return err
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
			fmt.Println("fetched", len(p.RecordBatches) > 0)
		}
	}
	return nil
}

// hex scans an id.
type hex [16]byte

func (h *hex) Scan(state fmt.ScanState, _ rune) error {
	var b []byte
	if _, err := fmt.Fscanf(state, "%x", &b); err != nil {
		return err
	}
	copy(h[:], b)
	return nil
}
