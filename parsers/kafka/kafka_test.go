package kafka

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// hooks judges by rules and remembers what it was told.
type hooks struct {
	t         testing.TB
	judge     policy.Judge
	requests  []string
	responses []string
	malformed []string
	open      map[uint64]bool
	passes    bool // nothing is enforced
}

func newHooks(t testing.TB, rules ...policy.KafkaRule) *hooks {
	h := &hooks{t: t, open: map[uint64]bool{}}
	h.use(rules...)
	return h
}

func (h *hooks) use(rules ...policy.KafkaRule) {
	for i := range rules {
		if rules[i].Role != "" {
			rules[i].APIKeys, _ = policy.KafkaRole(rules[i].Role, rules[i].TransactionalID != "")
		}
	}
	var err error
	if h.judge, err = policy.CompileSet(&policy.L7Set{Protocol: policy.ProtocolKafka, Kafka: rules}); err != nil {
		h.t.Fatal(err)
	}
}

func words(r policy.Request) string {
	k := r.(*policy.KafkaRequest)
	return fmt.Sprintf("%s topic=%s group=%s txn=%s", policy.KafkaAPIName(k.APIKey), k.Topic, k.Group, k.TransactionalID)
}

func (h *hooks) Request(id uint64, r policy.Request) policy.Decision {
	d := h.judge.Decide(r)
	verdict := "denied"
	if d.Verdict == policy.Allow {
		verdict = "allowed"
	}
	h.requests = append(h.requests, verdict+" "+words(r))
	h.open[id] = true
	return d
}

func (h *hooks) Deny(id uint64, r policy.Request, reason string) bool {
	h.requests = append(h.requests, "refused "+words(r))
	h.open[id] = true
	return h.passes
}

func (h *hooks) Allows(r policy.Request) bool { return h.judge.Decide(r).Verdict == policy.Allow }

func (h *hooks) Response(id uint64, a parsers.Answer) {
	if !h.open[id] {
		h.t.Errorf("an answer to %d, which is not open", id)
	}
	delete(h.open, id)
	where := "server"
	if a.Local {
		where = "local"
	}
	h.responses = append(h.responses, fmt.Sprintf("%s %d", where, a.Status))
}

func (h *hooks) Unanswered(id uint64) { delete(h.open, id) }

func (h *hooks) Malformed(_ uint64, from parsers.Side, err error) bool {
	h.malformed = append(h.malformed, from.String()+": "+err.Error())
	return h.passes
}

// wire is a session between a client and a server that the test plays.
type wire struct {
	*parsertest.Relay
	t     testing.TB
	hooks *hooks
	read  [2]int // of what came out
}

func newWire(t testing.TB, splits parsertest.Splits, rules ...policy.KafkaRule) *wire {
	h := newHooks(t, rules...)
	w := &wire{Relay: parsertest.New(New(h, new(Directory).Of(1))), t: t, hooks: h}
	w.Splits = splits
	return w
}

// got takes what has come out to a side since it was last asked.
func (w *wire) got(to parsers.Side) []byte {
	b := w.Out[to][w.read[to]:]
	w.read[to] = len(w.Out[to])
	return b
}

func requestFrame(correlation int32, r kmsg.Request) []byte {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester"))
	return f.AppendRequest(nil, r, correlation)
}

func responseFrame(correlation int32, r kmsg.Response) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(correlation))
	if r.IsFlexible() && r.Key() != keyAPIVersions {
		b = append(b, 0)
	}
	return frame(r.AppendTo(b))
}

// decode reads one answer whole.
func decode(t testing.TB, b []byte, request kmsg.Request) (correlation int32, r kmsg.Response) {
	t.Helper()
	r = request.ResponseKind()
	r.SetVersion(request.GetVersion())
	return decodeAs(t, b, r), r
}

func decodeAs(t testing.TB, b []byte, r kmsg.Response) (correlation int32) {
	t.Helper()
	if len(b) < 8 || int(binary.BigEndian.Uint32(b))+4 != len(b) {
		t.Fatalf("%d bytes are no answer: %x", len(b), b[:min(len(b), 40)])
	}
	body := b[8:]
	if r.IsFlexible() && r.Key() != keyAPIVersions {
		if body[0] != 0 {
			t.Fatalf("tags in the header of an answer: %x", body[0])
		}
		body = body[1:]
	}
	if err := r.ReadFrom(body); err != nil {
		t.Fatalf("%T version %d does not decode: %v", r, r.GetVersion(), err)
	}
	if again := r.AppendTo(nil); len(again) != len(body) {
		t.Fatalf("%T version %d: %d bytes, of which %d are known", r, r.GetVersion(), len(body), len(again))
	}
	return int32(binary.BigEndian.Uint32(b[4:]))
}

// fill gives every field a value, and every list one element.
func fill(v reflect.Value, named map[string]any) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		fill(v.Elem(), named)
	case reflect.Struct:
		if d, ok := v.Addr().Interface().(interface{ Default() }); ok {
			d.Default()
		}
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if name == "Version" || name == "UnknownTags" {
				continue
			}
			if value, ok := named[name]; ok && reflect.TypeOf(value).ConvertibleTo(v.Field(i).Type()) {
				v.Field(i).Set(reflect.ValueOf(value).Convert(v.Field(i).Type()))
				continue
			}
			fill(v.Field(i), named)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte("records"))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), named)
	case reflect.String:
		v.SetString("thing")
	case reflect.Array:
		reflect.Copy(v, reflect.ValueOf([16]byte{7, 7, 7}))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	}
}

// everyVersion runs f for each version of each API.
func everyVersion(t *testing.T, f func(t *testing.T, request kmsg.Request)) {
	for key := int16(0); key < 100; key++ {
		a := apis()[key]
		if a == nil {
			continue
		}
		for version := a.versions.from; version <= a.versions.to; version++ {
			t.Run(fmt.Sprintf("%s/%d", kmsg.NameForKey(key), version), func(t *testing.T) {
				request := kmsg.RequestForKey(key)
				request.SetVersion(version)
				fill(reflect.ValueOf(request), map[string]any{"Acks": int16(1), "SessionID": int32(0), "SessionEpoch": int32(-1), "ShareSessionEpoch": int32(0), "ReplicaID": int32(-1), "ReplicaState": noReplica, "CoordinatorType": int8(0)})
				f(t, request)
			})
		}
	}
}

var noReplica = kmsg.FetchRequestReplicaState{ID: -1, Epoch: -1}

var thingID = [16]byte{7, 7, 7}

func TestEveryVersionPasses(t *testing.T) {
	splits := map[string]parsertest.Splits{"whole": parsertest.Whole, "bytewise": parsertest.Bytewise, "random": parsertest.Random(3)}
	everyVersion(t, func(t *testing.T, request kmsg.Request) {
		for name, split := range splits {
			w := newWire(t, split, policy.KafkaRule{})
			w.Session.(*Session).topics.Learn(thingID, "thing")
			sent := requestFrame(42, request)
			w.Write(parsers.Client, sent)
			if got := w.got(parsers.Server); !slices.Equal(got, sent) {
				t.Fatalf("%s: the server got %x, sent was %x; %v %v", name, got, sent, w.Err, w.hooks.requests)
			}
			response := request.ResponseKind()
			response.SetVersion(request.GetVersion())
			fill(reflect.ValueOf(response), map[string]any{"Topic": "thing", "TopicID": thingID, "ApiKey": int16(18), "MinVersion": int16(0), "MaxVersion": int16(4)})
			answer := responseFrame(42, response)
			w.Write(parsers.Server, answer)
			if got := w.got(parsers.Client); !slices.Equal(got, answer) {
				t.Fatalf("%s: the client got %x, the answer was %x; %v", name, got, answer, w.Err)
			}
			if len(w.hooks.malformed) > 0 || len(w.hooks.open) > 0 || len(w.hooks.requests) == 0 {
				t.Fatalf("%s: %v, %d open, %v", name, w.hooks.malformed, len(w.hooks.open), w.hooks.requests)
			}
		}
	})
}

func errorsOf(r kmsg.Response) []int16 { return errorsIn(reflect.ValueOf(r)) }

// errorsIn collects the error codes of an answer.
func errorsIn(v reflect.Value) (list []int16) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return errorsIn(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "ErrorCode" {
				if code := int16(v.Field(i).Int()); code != 0 {
					list = append(list, code)
				}
				continue
			}
			list = append(list, errorsIn(v.Field(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			list = append(list, errorsIn(v.Index(i))...)
		}
	}
	return list
}

func TestEveryVersionIsDenied(t *testing.T) {
	everyVersion(t, func(t *testing.T, request kmsg.Request) {
		for _, split := range []parsertest.Splits{parsertest.Whole, parsertest.Bytewise} {
			w := newWire(t, split, policy.KafkaRule{APIKeys: []int16{-1}})
			w.Session.(*Session).topics.Learn(thingID, "thing")
			w.Write(parsers.Client, requestFrame(42, request))
			w.Elapse()
			if got := w.got(parsers.Server); len(got) > 0 {
				t.Fatalf("the server got %x", got)
			}
			correlation, response := decode(t, w.got(parsers.Client), request)
			codes := errorsIn(reflect.ValueOf(response))
			if correlation != 42 || len(codes) == 0 {
				t.Fatalf("correlation %d, %+v", correlation, response)
			}
			for _, code := range codes {
				if !slices.Contains([]int16{codeTopicDenied, codeGroupDenied, codeClusterDenied, codeTransactionDenied}, code) {
					t.Errorf("error %d", code)
				}
			}
			if len(w.hooks.open) > 0 || w.Closed {
				t.Errorf("%d open, closed %v", len(w.hooks.open), w.Closed)
			}
		}
	})
}
