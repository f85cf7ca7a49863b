package proxy

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// records streams what the proxy recorded.
func (r *running) records() <-chan observe.Record {
	r.t.Helper()
	stream, err := r.client.Records(r.t.Context(), &proxyv1.RecordsRequest{})
	must(r.t, err)
	out := make(chan observe.Record, 1000)
	go func() {
		defer close(out)
		for {
			batch, err := stream.Recv()
			if err != nil {
				return
			}
			for _, record := range batch.Records {
				out <- recordFromProto(record)
			}
		}
	}()
	return out
}

func TestRecords(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	a := r.asker()
	a.send("GET /public/a?b=c")
	a.want(200, "hello /public/a")
	a.send("GET /secret")
	a.want(403, denied)
	records := r.records() // what happened before anybody listened is there
	local := addrPort(a.c.LocalAddr())
	next := func(word observe.Word, reply bool, status int, url string) observe.Record {
		t.Helper()
		e := <-records
		if e.Kind != observe.KindL7 || e.HTTP == nil || e.Word != word || e.Reply != reply ||
			e.HTTP.Status != status || e.HTTP.URL != "http://web"+url || e.HTTP.Method != "GET" || e.HTTP.Protocol != "HTTP/1.1" {
			t.Errorf("%+v %+v", e, e.HTTP)
		}
		if e.Source != local || e.SourceIdentity != 1000 || e.DestinationIdentity != 2000 ||
			e.Direction != policy.Egress || e.Proto != policy.ProtoTCP || time.Since(e.Time) > time.Minute {
			t.Errorf("%+v", e)
		}
		if (e.HTTP.Latency > 0) != reply {
			t.Error(e.HTTP.Latency)
		}
		return e
	}
	if e := next(observe.Forwarded, false, 0, "/public/a?b=c"); e.Rule.Policy != "default/web" {
		t.Errorf("%+v", e)
	}
	next(observe.Forwarded, true, 200, "/public/a?b=c")
	if e := next(observe.Dropped, false, 0, "/secret"); e.Detail == "" || e.Reason != observe.ReasonPolicyDenied {
		t.Errorf("%+v", e)
	}
	next(observe.Forwarded, true, 403, "/secret")
}

// The encoding made by hand is what the generated code reads, also of bytes that
// are no text.
func TestRecordEncoding(t *testing.T) {
	source, destination := netip.MustParseAddrPort("[fd00::1]:1234"), netip.MustParseAddrPort("10.0.0.1:80")
	r := &policy.HTTPRequest{Method: []byte("GET\x1b[2J"), Path: []byte("/\xff?" + strings.Repeat("x", 5000)), Host: []byte("h\"")}
	b := appendEnds(nil, source, destination, 1, 2)
	b, _ = appendHTTP(b, nil, r, site{"http://", "HTTP/1.1", destination}, 100)
	b = appendVerdict(b, time.Unix(1, 2), observe.Dropped, observe.ReasonPolicyDeny)
	b = appendDecision(b, &policy.Decision{
		Rule: policy.Ref{Policy: "p", Path: "q"}, Nearest: policy.Ref{Path: "n"}, Reason: "it is \x00 \u2028",
	}, policy.Egress)
	ring := newRing(0)
	ring.add(b[:10], b[10:])
	data, n := ring.pop()
	var batch proxyv1.RecordBatch
	if err := proto.Unmarshal(data, &batch); err != nil || n != 1 || len(batch.Records) != 1 {
		t.Fatal(err, n)
	}
	if unknown := batch.Records[0].ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Error("unknown fields", unknown)
	}
	e := recordFromProto(batch.Records[0])
	scanned, err := scanAll(data)
	if err != nil || scanned.lost != 0 || len(scanned.records) != 1 || !reflect.DeepEqual(scanned.records[0], e) || !sameDigest(scanned.digests[0], e.Digest()) {
		t.Errorf("scanned: %+v, %v, want %+v", scanned, err, e)
	}
	if e.Source != source || e.Destination != destination || e.SourceIdentity != 1 || e.DestinationIdentity != 2 ||
		e.Rule.Policy != "p" || e.Rule.Path != "q" || e.Nearest.Path != "n" || e.Detail != "it is %00 %E2%80%A8" ||
		e.Direction != policy.Egress || e.Word != observe.Dropped || !e.Time.Equal(time.Unix(1, 2)) || e.Reason != observe.ReasonPolicyDeny {
		t.Errorf("%+v", e)
	}
	if e.HTTP.Method != "GET%1B[2J" || !strings.HasPrefix(e.HTTP.URL, "http://h\"/%FF?xxx") || len(e.HTTP.URL) > 102 {
		t.Errorf("%+v", e.HTTP)
	}
}

func TestRingLosesTheOldest(t *testing.T) {
	ring := newRing(4 * chunkSize)
	record := appendString(nil, fieldDetail, strings.Repeat("x", 1000))
	for range 1000 {
		ring.add(record)
	}
	kept, lost := uint64(0), uint64(0)
	for {
		data, n := ring.pop()
		if data == nil {
			break
		}
		var batch proxyv1.RecordBatch
		_ = proto.Unmarshal(data, &batch)
		kept, lost = kept+n, lost+batch.Lost
	}
	if kept+lost != 1000 || kept < 150 || lost != ring.lostTotal() {
		t.Error(kept, lost)
	}
}

func TestEnforceRefusesNonsense(t *testing.T) {
	r := startProxy(t, "", nil)
	id := make([]byte, 16)
	for what, sets := range map[string][]*proxyv1.L7Set{
		"short id":       {{Number: uint32(setA), Id: []byte("x"), Protocol: 1}},
		"number 0":       {{Number: 0, Id: id, Protocol: 1}},
		"other protocol": {{Number: uint32(setA), Id: id, Protocol: 3}},
		"same id":        {{Number: uint32(setA), Id: id, Protocol: 1}, {Number: uint32(setB), Id: id, Protocol: 1}},
		"same number":    {{Number: uint32(setA), Id: id, Protocol: 1}, {Number: uint32(setA), Id: []byte("0123456789abcdef"), Protocol: 1}},
	} {
		_, err := r.client.Enforce(t.Context(), &proxyv1.EnforceRequest{Sets: sets})
		if status.Code(err) != codes.InvalidArgument {
			t.Error(what, err)
		}
	}
}

// Nothing of a set is lost on its way: what was left out would be allowed or denied.
func TestSnapshotConversion(t *testing.T) {
	id, secret := policy.SetID{1}, policy.SecretRef{Namespace: "s", Name: "t"}
	ref := policy.Ref{Policy: "a", Path: "b"}
	http := []policy.HTTPRule{{
		Method: "m", Path: "p", Host: "h", Ref: ref, Headers: []policy.HeaderRule{{Name: "n", Value: "v"}},
		Edits: []policy.HeaderEdit{
			{HeaderRule: policy.HeaderRule{Name: "e", Value: "f"}, Action: policy.HeaderReplace, Secret: &secret},
			{HeaderRule: policy.HeaderRule{Name: "g"}, Action: policy.HeaderLog},
		},
		Secrets: []policy.SecretHeader{{Name: "x", Secret: secret, Value: "instead"}},
	}}
	grpc := []policy.GRPCRule{{Service: "a.B", Method: "C", Ref: ref}}
	set := &policy.L7Set{
		ID: id, Protocol: policy.ProtocolHTTP, HTTP: http, GRPC: grpc, Observed: true,
		Deny:         &policy.L7Rules{Protocol: policy.ProtocolHTTP, HTTP: http[:1], GRPC: grpc},
		DenyResponse: &policy.DenyResponse{Status: 451, Body: "no"},
		Audit:        &policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: http},
	}
	want := redirect.Snapshot{
		Revision: 3, Audit: true, Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setA, Set: set}},
		Secrets: map[policy.SecretRef]string{secret: "value"},
	}
	got, err := snapshotFromProto(snapshotToProto(want))
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v\nset %+v\nwant %+v", got, want, got.Sets[id].Set, set)
	}
}

func TestDrain(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	a := r.asker()
	a.send("GET /public")
	a.want(200, "hello /public")
	_, err := r.client.Drain(t.Context(), &proxyv1.DrainRequest{GraceNs: int64(time.Minute)})
	must(t, err)
	eventually(t, "new connections are refused", func() bool {
		c, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + r.addr + "/public")
		if err == nil {
			_ = c.Body.Close()
		}
		return err != nil
	})
	a.send("GET /public") // what is open goes on
	a.want(200, "hello /public")
	_ = a.c.Close()
	eventually(t, "the process ends", func() bool {
		_, err := r.client.Status(context.Background(), &proxyv1.StatusRequest{})
		return status.Code(err) == codes.Unavailable
	})
	_, _ = io.Copy(io.Discard, a.r)
}
