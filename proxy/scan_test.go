package proxy

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
)

// scannedBatch is what the agent gets to know of a batch, and what it shows when asked.
type scannedBatch struct {
	digests     []observe.Digest
	records     []observe.Record
	lost        uint64
	bytes, hand int
}

func scanAll(data []byte) (all scannedBatch, err error) {
	var s scanner
	err = s.batch(data, func(part observe.Batch, lost uint64) {
		for _, d := range part.Digests {
			all.records = append(all.records, part.Records.Record(d.Place))
			d.Place = 0
			d.Addresses = slices.Clone(d.Addresses)
			all.digests = append(all.digests, d)
		}
		all.lost, all.bytes, all.hand = all.lost+lost, all.bytes+part.Bytes, all.hand+1
	})
	return all, err
}

func sameDigest(a, b observe.Digest) bool {
	same := a.Time.Equal(b.Time) && bytes.Equal(a.Method, b.Method) && bytes.Equal(a.Topic, b.Topic) && bytes.Equal(a.Query, b.Query) && slices.Equal(a.Addresses, b.Addresses)
	for _, d := range []*observe.Digest{&a, &b} {
		d.Time, d.Method, d.Topic, d.Query, d.Addresses = time.Time{}, nil, nil, nil, nil
		if d.Layer != observe.LayerHTTP && d.Layer != observe.LayerKafka && d.Layer != observe.LayerDNS {
			d.Latency = 0 // of nothing
		}
		if d.Layer != observe.LayerKafka {
			d.APIKey, d.ErrorCode = 0, 0
		}
		if d.Layer != observe.LayerDNS {
			d.Type, d.Rcode = 0, 0
		}
	}
	return same && reflect.DeepEqual(a, b)
}

// samples is one record of each sort.
func samples() []*proxyv1.Record {
	ends := func(change func(*proxyv1.Record)) *proxyv1.Record {
		r := &proxyv1.Record{
			TimeNs: 1_795_000_000_123_456_789, Source: []byte{10, 9, 1, 2}, Destination: netip.MustParseAddr("fd00::1").AsSlice(),
			SourcePort: 43210, DestinationPort: 53, SourceIdentity: 300, DestinationIdentity: 1 << 24, Direction: 1, Word: 1,
			Rule: &proxyv1.Ref{Policy: "default/names", Path: "egress[0].toPorts[0].rules.dns[0]"},
		}
		change(r)
		return r
	}
	return []*proxyv1.Record{
		ends(func(r *proxyv1.Record) { r.Dns = &proxyv1.DNSRecord{Query: "host-1.example.org", Type: 28, Udp: true} }),
		ends(func(r *proxyv1.Record) {
			r.Reply, r.LatencyNs = true, 12345
			r.Dns = &proxyv1.DNSRecord{Query: "a", Type: 1, Rcode: 3, Ttl: 60, Chain: []string{"b", "é"}, Addresses: [][]byte{{192, 0, 2, 80}, {1}, make([]byte, 16)}}
		}),
		ends(func(r *proxyv1.Record) {
			r.Method, r.Url, r.Protocol, r.Status, r.LatencyNs, r.Reply = "GET", "http://a/b", "HTTP/1.1", 200, 1e6, true
			r.Headers = []*proxyv1.Header{{Name: "grpc-status", Value: "0"}}
		}),
		ends(func(r *proxyv1.Record) {
			r.Word, r.Reason, r.Detail, r.Method = 2, 133, "method PUT is not POST", "PUT"
		}),
		ends(func(r *proxyv1.Record) {
			r.Status, r.Reply = 0xffff, true
			r.Kafka = &proxyv1.KafkaRecord{ApiKey: 1, ApiVersion: 13, CorrelationId: -7, ClientId: "c", Topic: "orders", Group: "g", TransactionalId: "t"}
		}),
		ends(func(r *proxyv1.Record) { r.Tls = &proxyv1.TLSRecord{ServerName: "www.example.org"} }),
		ends(func(r *proxyv1.Record) { r.Word, r.Reason, r.Detail = 2, 231, "no route" }),
		ends(func(r *proxyv1.Record) { r.Word, r.Detail = 3, "not HTTP" }),
		{},
	}
}

// malformed is what must be refused, as the field of a record.
func malformed() map[string][]byte {
	field := func(number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	return map[string][]byte{
		"a URL that is no text":         field(fieldURL, "http://\xff"),
		"a detail that is no text":      field(fieldDetail, "\xc3"),
		"a rule's name that is no text": field(fieldRule, string(field(1, "\xff"))),
		"a rule that is cut":            field(fieldNearest, "\x0a\x05ab"),
		"a header that is no text":      field(fieldHeaders, string(field(2, "\xff"))),
		"a name that is no text":        field(fieldDNS, string(field(dnsQuery, "a\xffb"))),
		"an alias that is no text":      field(fieldDNS, string(field(dnsChain, "\xff"))),
		"a topic that is no text":       field(fieldKafka, string(field(kafkaTopic, "\xff"))),
		"a group that is no text":       field(fieldKafka, string(field(kafkaGroup, "\xff"))),
		"a server that is no text":      field(fieldTLS, string(field(tlsServerName, "\xff"))),
		"a length beyond the end":       {fieldDetail<<3 | 2, 200, 1},
		"a number that is cut":          {fieldTime << 3, 0x80},
		"a number of eleven bytes":      append([]byte{fieldTime << 3}, bytes.Repeat([]byte{0x80}, 11)...),
		"field 0":                       {0, 1},
		"the end of no group":           {9<<3 | 4},
		"a group without end":           {9<<3 | 3},
		"a type that there is not":      {9<<3 | 7},
	}
}

// What the agent scans is what the generated code decodes.
func TestScan(t *testing.T) {
	var batch proxyv1.RecordBatch
	for range 100 { // so that there are several parts
		batch.Records = append(batch.Records, samples()...)
	}
	batch.Lost = 7
	data, err := proto.Marshal(&batch)
	must(t, err)
	all, err := scanAll(data)
	must(t, err)
	if all.lost != 7 || all.bytes != len(data) || all.hand != (len(batch.Records)+scanAtOnce-1)/scanAtOnce || len(all.digests) != len(batch.Records) {
		t.Errorf("%d lost, %d bytes of %d, in %d parts, %d records", all.lost, all.bytes, len(data), all.hand, len(all.digests))
	}
	for i, r := range batch.Records {
		want := recordFromProto(r)
		if !reflect.DeepEqual(all.records[i], want) {
			t.Errorf("record %d is %+v, want %+v", i, all.records[i], want)
		}
		if !sameDigest(all.digests[i], want.Digest()) {
			t.Errorf("the digest of record %d is %+v, want %+v", i, all.digests[i], want.Digest())
		}
	}
}

func TestScanRefuses(t *testing.T) {
	for what, record := range malformed() {
		if proto.Unmarshal(record, &proxyv1.Record{}) == nil {
			t.Errorf("%s: is read by the generated code", what)
		}
		var s scanner
		if s.scan(record, &observe.Digest{}) == nil {
			t.Errorf("%s: is not refused", what)
		}
		batch := protowire.AppendBytes(protowire.AppendTag(nil, batchRecords, protowire.BytesType), record)
		if all, err := scanAll(batch); err == nil || len(all.records) > 0 {
			t.Errorf("%s: the batch is not refused", what)
		}
	}
	for _, batch := range []string{"\x0a\x05abc", "\x0a", "\x00", "\x80"} {
		if _, err := scanAll([]byte(batch)); err == nil {
			t.Errorf("batch %q is not refused", batch)
		}
	}
}

// FuzzScan compares with the generated code: what is refused, and what is understood.
func FuzzScan(f *testing.F) {
	for _, r := range samples() {
		data, _ := proto.Marshal(r)
		f.Add(data)
	}
	for _, record := range malformed() {
		f.Add(record)
	}
	many := samples()[0]
	for i := range 3 * maxShown {
		many.Dns.Addresses = append(many.Dns.Addresses, []byte{192, 0, 2, byte(i)}, []byte("no address"))
		many.Dns.Chain = append(many.Dns.Chain, "x")
	}
	crowd, _ := proto.Marshal(many)
	f.Add(crowd)                                                       // more than are shown
	f.Add([]byte("\x08\x01\x08\x02"))                                  // twice
	f.Add([]byte("\xca\x02\x02\x08\x01\xca\x02\x02\x10\x02"))          // messages that are merged
	f.Add([]byte("\x0a\x01a\x70\x05"))                                 // of other types than they are
	f.Add([]byte("\x4b\x08\x01\x4c\x45abcd\x41abcdefgh\xf8\xff\x01x")) // groups, fixed numbers
	f.Add([]byte("\x82\x83\x00\x82\x80\x00ab"))                        // longer than need be
	f.Fuzz(func(t *testing.T, data []byte) {
		var p proxyv1.Record
		unmarshalled := proto.Unmarshal(data, &p)
		// The length is written longer than need be, which is no mistake.
		batch := append([]byte{batchRecords<<3 | 2}, protowire.AppendVarint(nil, uint64(len(data)))...)
		batch[len(batch)-1] |= 0x80
		batch = append(append(batch, 0), data...)
		all, err := scanAll(batch)
		if (err == nil) != (unmarshalled == nil) {
			t.Fatalf("scanned: %v, decoded: %v", err, unmarshalled)
		}
		if err != nil {
			return
		}
		want := recordFromProto(&p)
		if len(all.records) != 1 || !reflect.DeepEqual(all.records[0], want) || !sameDigest(all.digests[0], want.Digest()) {
			t.Fatalf("scanned %+v, want %+v", all, want)
		}
	})
}

// BenchmarkBatch is what the agent does for records when they come, while nobody looks.
func BenchmarkBatch(b *testing.B) {
	for name, of := range map[string][]*proxyv1.Record{"dns": samples()[:2], "http": samples()[2:3], "kafka": samples()[4:5]} {
		b.Run(name, func(b *testing.B) {
			var batch proxyv1.RecordBatch
			for range 400 / len(of) {
				batch.Records = append(batch.Records, of...)
			}
			data, err := proto.Marshal(&batch)
			if err != nil {
				b.Fatal(err)
			}
			ring := observe.NewRing(16384)
			metrics, err := observe.NewMetrics(prometheus.NewRegistry(), ring)
			if err != nil {
				b.Fatal(err)
			}
			sink, names, s := &observe.Sink{Builder: &observe.Builder{}, Ring: ring, Metrics: metrics}, observe.Names{}, scanner{}
			b.ReportAllocs()
			for b.Loop() {
				err := s.batch(data, func(part observe.Batch, _ uint64) {
					names.Learn(part.Digests)
					sink.Take(part)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Records)), "ns/record")
		})
	}
}
