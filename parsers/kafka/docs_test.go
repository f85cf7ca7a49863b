package kafka

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

var update = flag.Bool("update", false, "write the table of docs/kafka.md anew")

const docs = "../../docs/kafka.md"

// TestDocs holds the table in docs/kafka.md to what is judged and answered.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- by API: go test ./parsers/kafka -run Docs -update -->\n", "<!-- end -->\n"
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("docs/kafka.md has no place for the table")
	}
	want := before + begin + table(t) + end + after
	if *update {
		if err := os.WriteFile(docs, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Error("docs/kafka.md is not current: run go test ./parsers/kafka -run Docs -update")
	}
}

func table(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| key | API | versions | about | produce | consume | a topic alone | denied with |\n|---|---|---|---|---|---|---|---|\n")
	yes := func(ok bool) string {
		if ok {
			return "yes"
		}
		return ""
	}
	for key := int16(0); key < 100; key++ {
		a := apis()[key]
		if a == nil {
			continue
		}
		request := kmsg.RequestForKey(key)
		request.SetVersion(a.versions.to)
		fill(reflect.ValueOf(request), map[string]any{"Acks": int16(1), "SessionID": int32(0), "SessionEpoch": int32(-1), "ShareSessionEpoch": int32(0), "ReplicaID": int32(-1), "ReplicaState": noReplica, "CoordinatorType": int8(0), "ResourceType": int8(2)})
		var s scan
		if err := s.read(a.request(a.versions.to), a.versions.to, request.AppendTo(nil), maxMarks); err != nil {
			t.Fatal(err)
		}
		about, alone := map[string]bool{}, false
		for _, it := range s.items(key) {
			topic := it.topic
			if it.byID {
				topic = "thing"
			}
			for what, has := range map[string]bool{"topics": topic != "", "groups": it.group != "", "transactional ids": it.transaction != ""} {
				if has {
					about[what] = true
				}
			}
			h := newHooks(t, policy.KafkaRule{Topic: topic + "*"})
			alone = alone || h.Allows(&policy.KafkaRequest{APIKey: key, APIVersion: a.versions.to, Topic: topic, Group: it.group})
		}
		if key == keyProduce {
			about["transactional ids"] = true
		}
		name := kmsg.NameForKey(key)
		if !strings.EqualFold(name, policy.KafkaAPIName(key)) {
			name += " (`" + policy.KafkaAPIName(key) + "`)"
		}
		var list []string
		for what := range about {
			list = append(list, what)
		}
		slices.Sort(list)
		fmt.Fprintf(&b, "| %d | %s | %d–%d | %s | %s | %s | %s | %s |\n", key, name, a.versions.from, a.versions.to,
			strings.Join(list, ", "), yes(inRole("produce", key)), yes(inRole("consume", key)), yes(alone), deniedWith(t, request))
	}
	return b.String()
}

func inRole(role string, key int16) bool {
	keys, _ := policy.KafkaRole(role, false)
	return slices.Contains(keys, key)
}

func deniedWith(t *testing.T, request kmsg.Request) string {
	w := newWire(t, parsertest.Whole, policy.KafkaRule{APIKeys: []int16{-1}})
	w.Session.(*Session).topics.Learn(thingID, "thing")
	w.Write(parsers.Client, requestFrame(1, request))
	w.Elapse()
	_, response := decode(t, w.got(parsers.Client), request)
	var list []string
	for _, code := range errorsOf(response) {
		if text := fmt.Sprint(code); !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return strings.Join(list, ", ")
}
