package observe

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/policy"
)

// packed counts how often one of its records is decoded.
type packed struct {
	records []Record
	opened  atomic.Int32
}

func (p *packed) Record(place uint32) Record {
	p.opened.Add(1)
	return p.records[place-100]
}

func (p *packed) batch(bytes int) Batch {
	b := Batch{Records: p, Bytes: bytes}
	for i := range p.records {
		d := p.records[i].Digest()
		d.Place = uint32(100 + i)
		b.Digests = append(b.Digests, d)
	}
	return b
}

// moving is a directory in which whoever has an address changes.
type moving struct{ name string }

func (m *moving) Endpoint(netip.Addr) (EndpointInfo, bool) {
	return EndpointInfo{Identity: 7, Name: m.name, Namespace: m.name + "s"}, true
}
func (m *moving) Identity(policy.Identity) []string { return []string{"k8s:app=" + m.name} }

// What came encoded is decoded when somebody asks for its flow, which then says whose the
// addresses were when it came.
func TestFlowsAreMadeLate(t *testing.T) {
	directory := &moving{name: "early"}
	ring := NewRing(16)
	sink := &Sink{Builder: &Builder{Directory: directory}, Ring: ring}
	p := &packed{records: []Record{*record(func(r *Record) {
		r.Kind, r.Word, r.HTTP = KindL7, Forwarded, &HTTP{Method: "GET", URL: "http://a/"}
	}), *record(func(r *Record) {
		r.Kind, r.Word, r.Reply, r.HTTP = KindL7, Forwarded, true, &HTTP{Method: "GET", URL: "http://a/", Status: 200}
		r.SourceIdentity = 8
	})}}
	b := p.batch(1000)
	sink.Take(b)
	clear(b.Digests) // which are not kept
	directory.name = "late"
	if n := p.opened.Load(); n != 0 {
		t.Errorf("%d records were decoded before anybody asked", n)
	}
	events := ring.First(0, isFlow)
	if len(events) != 2 || p.opened.Load() != 0 {
		t.Fatalf("%d events, %d decoded", len(events), p.opened.Load())
	}
	for i, f := range []*flowpb.Flow{events[0].Flow(), events[1].Flow()} {
		for _, end := range []*flowpb.Endpoint{f.GetSource(), f.GetDestination()} {
			if end.GetPodName() != "early" || end.GetNamespace() != "earlys" || !slices.Equal(end.GetLabels(), []string{"k8s:app=early"}) {
				t.Errorf("flow %d is between %v", i, end)
			}
		}
		if !f.GetTime().AsTime().Equal(testTime()) || f.GetL7().GetHttp().GetUrl() != "http://a/" {
			t.Errorf("flow %d is %v", i, f)
		}
	}
	// The answer goes from the server to the client.
	if f := events[1].Flow(); f.GetDestination().GetIdentity() != 8 || f.GetL4().GetTCP().GetSourcePort() != 80 {
		t.Errorf("the answer is %v", f)
	}
	first, again := events[0].Flow(), events[0].Flow()
	if first != again || p.opened.Load() != 2 {
		t.Error("a flow was made twice")
	}
}

// TestNamespacesOfBatches has both ends' namespaces seen when records come.
func TestNamespacesOfBatches(t *testing.T) {
	ring := NewRing(16)
	sink := &Sink{Builder: &Builder{Directory: &moving{name: "early"}}, Ring: ring}
	sink.Record(&Record{Kind: KindL7, Source: netip.MustParseAddrPort("10.0.0.1:1")})
	if got := ring.Namespaces(); len(got) != 1 || got[0].GetNamespace() != "earlys" {
		t.Errorf("%v", got)
	}
}

// A ring keeps no more memory than it may, whatever is in a batch; who reads is told of what
// was given up.
func TestRingIsBoundedInBytes(t *testing.T) {
	ring := NewRing(1000)
	ring.held.max = 1 << 20
	sink := &Sink{Builder: &Builder{}, Ring: ring}
	reader := ring.Follow()
	const each, size = 10, 300 << 10
	for range 20 {
		p := &packed{records: make([]Record, each)}
		sink.Take(p.batch(size))
		if n := ring.Bytes(); n > 1<<20 {
			t.Fatalf("the ring holds %d bytes", n)
		}
	}
	if n := ring.Len(); n != 3*each || ring.Seen() != 20*each {
		t.Errorf("%d events are kept of %d, want %d", n, ring.Seen(), 3*each)
	}
	kept := 0
	for i := range ring.slots {
		if ring.slots[i].Load() != nil {
			kept++
		}
	}
	if kept != 3*each {
		t.Errorf("%d events are in memory, want %d", kept, 3*each)
	}
	last, _ := ring.Last(0, isFlow)
	if first := ring.First(0, isFlow); len(first) != 3*each || len(last) != 3*each || first[0] != last[0] {
		t.Errorf("%d events are found from the front, and %d from the end", len(first), len(last))
	}
	got, lost := 0, uint64(0)
	for got+int(lost) < 20*each {
		e, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if lost += e.Lost.GetNumEventsLost(); e.Lost == nil {
			got++
		}
	}
	if lost < 17*each || got == 0 {
		t.Errorf("%d read, told of %d lost", got, lost)
	}
	huge := &packed{records: make([]Record, each)} // alone more than there may be: it is kept all the same
	sink.Take(huge.batch(5 << 20))
	if ring.Len() != each {
		t.Errorf("%d events are kept, want those of the last batch", ring.Len())
	}
	for range 200 { // what is written over is not counted any more
		sink.Take((&packed{records: make([]Record, each)}).batch(100))
	}
	if n := ring.Bytes(); ring.Len() != 1000 || n > 101*(100+each*100) || len(ring.held.batches) > 101 {
		t.Errorf("%d events take %d bytes in %d batches", ring.Len(), n, len(ring.held.batches))
	}
}
