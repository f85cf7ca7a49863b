package agent

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/bpf"
)

func TestPressure(t *testing.T) {
	for _, c := range []struct {
		policy, evicting uint64
		ok               bool
		says             string
	}{
		{10, 100, true, "room in every map, fullest policy 10%"},
		{79, 0, true, "room in every map"},
		{80, 0, true, "warning: policy 80% full (80 of 100)"},
		{94, 0, true, "warning"},
		{95, 0, false, "policy 95% full (95 of 100): what is new is refused"},
		{100, 0, false, "policy 100% full"},
	} {
		usage := []bpf.Usage{{Map: "policy", Entries: c.policy, Limit: 100}, {Map: "ct-any", Entries: c.evicting, Limit: 100, Evicts: true}}
		ok, says := pressure(usage)
		if ok != c.ok || !strings.HasPrefix(says, c.says) {
			t.Errorf("%d of 100: %v %q, want %v %q", c.policy, ok, says, c.ok, c.says)
		}
	}
}

func TestMapMetrics(t *testing.T) {
	m := newMapMetrics(func() ([]bpf.Usage, error) { return []bpf.Usage{{Map: "policy", Entries: 7, Limit: 100}}, nil })
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range families {
		got += f.String()
	}
	for _, want := range []string{"headgate_map_entries", "headgate_map_limit", `name:"map" value:"policy"`, "value:7", "value:100"} {
		if !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
}
