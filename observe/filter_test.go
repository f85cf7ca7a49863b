package observe

import (
	"slices"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func filterOf(t *testing.T, text string) *flowpb.FlowFilter {
	t.Helper()
	ff := new(flowpb.FlowFilter)
	if err := protojson.Unmarshal([]byte(text), ff); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return ff
}

// testFlows are the flows of records(), by name.
func testFlows() map[string]*flowpb.Flow {
	b := &Builder{Directory: fakeDirectory{}, Node: "n1"}
	flows := make(map[string]*flowpb.Flow)
	for name, r := range records() {
		f := b.Build(r)
		f.Uuid = "id of " + name
		flows[name] = f
	}
	return flows
}

func matching(flows map[string]*flowpb.Flow, f Filter) string {
	var names []string
	for name, flow := range flows {
		if f(flow) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func TestFilters(t *testing.T) {
	const l7 = "answer, request, request denied, request malformed"
	const icmp, arp = "drop of a ping", "drop of ARP"
	flows := testFlows()
	for text, want := range map[string]string{
		`{"source_ip": ["192.0.2.7"]}`:                                                 "drop",
		`{"source_ip": ["192.0.2.0/24", "fd00::/8"]}`:                                  "drop, drop of a ping",
		`{"source_ip": ["FD00:0::1"]}`:                                                 icmp,
		`{"destination_ip": ["10.0.0.1"]}`:                                             "answer",
		`{"source_pod": ["deathstar"]}`:                                                "answer",
		`{"source_pod": ["default/death"]}`:                                            "answer",
		`{"source_pod": ["/death", "far/"]}`:                                           "answer, drop of a ping",
		`{"source_pod": ["far/death"]}`:                                                "",
		`{"destination_pod": ["other/"]}`:                                              "",
		`{"source_label": ["class=deathstar"]}`:                                        "answer",
		`{"source_label": ["reserved:world"]}`:                                         "drop",
		`{"source_label": ["app in (remote, local)"]}`:                                 icmp,
		`{"destination_label": ["k8s:class notin (deathstar),org"]}`:                   "answer",
		`{"source_identity": [600, 2]}`:                                                "drop, drop of a ping",
		`{"destination_identity": [1234]}`:                                             "answer",
		`{"source_port": ["80", "5555"]}`:                                              "answer, drop",
		`{"destination_port": ["43210"]}`:                                              "answer",
		`{"node_name": ["n2", "other/n1"]}`:                                            "",
		`{"node_name": ["n2", "*ault/N1"], "protocol": ["udp"]}`:                       "mapped address",
		`{"node_name": ["default/"], "protocol": ["ICMP"]}`:                            icmp,
		`{"protocol": ["icmpv4"]}`:                                                     "",
		`{"protocol": ["icmpv6", "udp"]}`:                                              "drop of a ping, mapped address",
		`{"protocol": ["http"]}`:                                                       l7,
		`{"protocol": ["dns", "kafka", "sctp"]}`:                                       "",
		`{"uuid": ["id of drop"]}`:                                                     "drop",
		`{"verdict": ["AUDIT", "ERROR"]}`:                                              "request malformed, verdict audited",
		`{"traffic_direction": ["EGRESS"]}`:                                            "drop of ARP, verdict audited",
		`{"ip_version": ["IPv6"]}`:                                                     icmp,
		`{"ip_version": ["IP_NOT_USED"]}`:                                              arp,
		`{"drop_reason_desc": ["POLICY_DENIED"]}`:                                      "drop, drop of a ping, request denied",
		`{"drop_reason_desc": [232, 235]}`:                                             "drop by our own reason, drop of ARP",
		`{"drop_reason_desc": ["POLICY_DENY"]}`:                                        "", // audited, not dropped
		`{"event_type": [{"type": 129}]}`:                                              l7,
		`{"event_type": [{"type": 5}, {"type": 4}]}`:                                   "mapped address, verdict audited, verdict redirected",
		`{"event_type": [{"type": 1, "match_sub_type": true, "sub_type": 232}]}`:       "drop by our own reason",
		`{"reply": [true]}`:                                                            "answer",
		`{"reply": [false], "event_type": [{"type": 1}]}`:                              "drop, drop by our own reason, drop of ARP, drop of a ping",
		`{"tcp_flags": [{"SYN": true, "ACK": true}]}`:                                  "drop by our own reason",
		`{"tcp_flags": [{"RST": true}, {"SYN": true}]}`:                                "drop, drop by our own reason, verdict audited, verdict redirected",
		`{"interface": [{"index": 7}]}`:                                                "verdict redirected",
		`{"interface": [{"name": "eth0"}]}`:                                            "",
		`{"dns_query": [".*"]}`:                                                        "",
		`{"http_status_code": ["200"]}`:                                                "answer",
		`{"http_status_code": ["40+"]}`:                                                "request denied, request malformed",
		`{"http_status_code": ["4+", "2+"]}`:                                           "answer, request denied, request malformed",
		`{"http_method": ["put"]}`:                                                     "request denied",
		`{"http_path": ["^/v1/[a-z]+-landing$"]}`:                                      "answer, request",
		`{"http_url": ["deathstar/v1/ex"]}`:                                            "request denied",
		`{"http_header": [{"key": "X-Token", "value": "abc"}]}`:                        "request denied",
		`{"http_header": [{"key": "authorization", "value": "Bearer s3cret"}]}`:        "",
		`{"http_method": ["POST"], "reply": [false]}`:                                  "request",
		`{"source_pod": ["tiefighter"], "verdict": ["DROPPED"], "protocol": ["http"]}`: "request denied",
	} {
		f, err := CompileFilter(filterOf(t, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := matching(flows, f); got != want {
			t.Errorf("%s: got [%s], want [%s]", text, got, want)
		}
	}
}

func TestFilterLists(t *testing.T) {
	flows := testFlows()
	list := func(texts ...string) (out []*flowpb.FlowFilter) {
		for _, s := range texts {
			out = append(out, filterOf(t, s))
		}
		return out
	}
	for _, c := range []struct {
		allow, deny []*flowpb.FlowFilter
		want        string
	}{
		{list(`{"protocol": ["udp"]}`, `{"verdict": ["ERROR"]}`), nil, "mapped address, request malformed"},
		{list(`{"protocol": ["http"]}`), list(`{"verdict": ["ERROR"]}`, `{"reply": [true]}`), "request, request denied"},
		{nil, list(`{"protocol": ["tcp"]}`), "drop of ARP, drop of a ping, mapped address"},
		{list(`{}`), list(`{"protocol": ["tcp"]}`), "drop of ARP, drop of a ping, mapped address"},
		{nil, list(`{}`), ""},
	} {
		f, err := CompileFilters(c.allow, c.deny)
		if err != nil {
			t.Fatal(err)
		}
		if got := matching(flows, f); got != c.want {
			t.Errorf("%v without %v: got [%s], want [%s]", c.allow, c.deny, got, c.want)
		}
	}
}

func TestFiltersRefused(t *testing.T) {
	for _, text := range []string{
		`{"source_ip": ["10.0.0"]}`, `{"source_ip": ["10.0.0.0/33"]}`, `{"source_pod": [""]}`,
		`{"source_label": ["a=(b"]}`, `{"source_label": ["a > 5"]}`, `{"source_label": ["=x"]}`, `{"source_label": ["a,"]}`,
		`{"source_port": ["http"]}`, `{"source_port": ["65536"]}`, `{"protocol": ["ipx"]}`,
		`{"node_name": ["a/b/c"]}`, `{"node_name": [""]}`, `{"node_name": ["n(1)"]}`,
		`{"http_status_code": ["600"]}`, `{"http_status_code": ["4"]}`, `{"http_path": ["("]}`,
		`{"http_method": ["GET"], "event_type": [{"type": 1}]}`,
		`{"experimental": {"cel_expression": ["true"]}}`,
	} {
		if _, err := CompileFilter(filterOf(t, text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	unknown := new(flowpb.FlowFilter)
	unknown.ProtoReflect().SetUnknown([]byte{0xc8, 0x3e, 0x01}) // field 1001
	if _, err := CompileFilter(unknown); err == nil {
		t.Error("a field of a later version was taken")
	}
	if _, err := CompileFilters([]*flowpb.FlowFilter{nil}, nil); err == nil {
		t.Error("null was taken")
	}
}

// A field is either understood or refused: none may be passed over, which would
// make its filter match everything.
func TestEveryFilterFieldCounts(t *testing.T) {
	unsupported := []string{
		"source_ip_xlated", "source_fqdn", "source_service", "source_workload", "source_cluster_name",
		"destination_fqdn", "destination_service", "destination_workload", "destination_cluster_name",
		"node_labels", "trace_id", "ip_trace_id", "encrypted", "experimental",
	}
	fields := new(flowpb.FlowFilter).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		ff := new(flowpb.FlowFilter)
		m := ff.ProtoReflect()
		if fd.IsList() {
			value := m.Mutable(fd).List()
			switch fd.Kind() {
			case protoreflect.StringKind:
				value.Append(protoreflect.ValueOfString(sample(string(fd.Name()))))
			default:
				value.Append(value.NewElement())
			}
		} else {
			m.Mutable(fd)
		}
		_, err := CompileFilter(ff)
		if refused := err != nil; refused != slices.Contains(unsupported, string(fd.Name())) {
			t.Errorf("%s: error is %v", fd.Name(), err)
		}
	}
}

func sample(field string) string {
	switch {
	case strings.HasSuffix(field, "_ip"):
		return "10.0.0.1"
	case strings.HasSuffix(field, "_port"):
		return "80"
	case field == "protocol":
		return "tcp"
	case field == "http_status_code":
		return "404"
	}
	return "a"
}

func TestSelectors(t *testing.T) {
	labels := []string{"k8s:app=web", "k8s:tier=front", "reserved:host", "bare=1", "k8s:empty"}
	for s, want := range map[string]bool{
		"":                            true,
		"app":                         true,
		" app = web ":                 true,
		"app==web":                    true,
		"k8s:app=web":                 true,
		"any:app=web":                 true,
		"cni:app=web":                 false,
		"!app":                        false,
		"!k8s:other":                  true,
		"app!=web":                    false,
		"app!=db":                     true,
		"other!=db":                   true,
		"app in (db,web)":             true,
		"app in (db, cache)":          false,
		"app notin ( db,cache )":      true,
		"other notin (db)":            true,
		"app=web,tier=front":          true,
		"app=web , tier in (back)":    false,
		"reserved:host":               true,
		"reserved:world":              false,
		"bare=1":                      true,
		"k8s:bare=1":                  false,
		"empty=":                      true,
		"app=":                        false,
		"app in (web),!reserved:init": true,
	} {
		sel, err := parseSelector(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if got := sel.matches(labels); got != want {
			t.Errorf("%q: got %v", s, got)
		}
	}
	for _, bad := range []string{",", "a,", "!", "a b", "a in b", "a in (b", "a=b c", "(a)", ":a", "a notin", "=b", "a>1"} {
		if sel, err := parseSelector(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, sel)
		}
	}
}

// Odd requests, which are no URL, are found by their path as well.
func TestHTTPPath(t *testing.T) {
	for url, want := range map[string]string{
		"http://h/a%20b?x=1": "/a b",
		"http://h/%zz?x":     "/%zz",
		"http://h":           "",
		"/plain":             "/plain",
		"*":                  "*",
		"http://h\\x/a\x01b": "/a\x01b",
	} {
		f := &flowpb.Flow{L7: &flowpb.Layer7{Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Url: url}}}}
		if got, ok := httpPath(f); !ok || got != want {
			t.Errorf("%q: got %q, %v, want %q", url, got, ok, want)
		}
	}
}
