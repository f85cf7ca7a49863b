package xds

import (
	"maps"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestRefusedIsMeasured: what Envoy refused is among the metrics by its rule, in its words,
// and of no more than anybody reads.
func TestRefusedIsMeasured(t *testing.T) {
	b := &Backend{
		config: Config{Dir: t.TempDir()}, custom: newCustom(),
		numbers: map[policy.SetID]redirect.SetNumber{{1}: 1, {2}: 2},
		refusals: map[policy.SetID]map[string]string{
			{1}: {"allow/00001 default/a ingress[0]": "too large"}, {9}: {"allow/00001 default/gone ingress[0]": "too large"},
		},
		failed: map[redirect.SetNumber]string{1: "too large", 2: "\xff" + strings.Repeat("x", 2*refusedBytes)},
	}
	b.noteFailed()
	want := map[string]float64{
		"headgate_envoy_refused rule=default/a ingress[0] why=too large":          1,
		"headgate_envoy_refused rule= why=" + strings.Repeat("x", refusedBytes-1): 1,
		"headgate_envoy_up": 0,
	}
	if got := gathered(t, b); !maps.Equal(got, want) {
		t.Errorf("the metrics are %v, want %v", got, want)
	}
	for i := range 2 * refusedMost {
		b.refusals[policy.SetID{1}][ruleName("allow", i, policy.Ref{Policy: "p", Path: "q"})+string(rune('a'+i))] = "no"
	}
	b.noteFailed()
	if n := len(b.refused); n != refusedMost {
		t.Errorf("%d refusals are told, want %d", n, refusedMost)
	}
	b.failed, b.refusals = nil, nil
	b.noteFailed()
	if b.failing != "" || len(b.refused) != 0 {
		t.Errorf("once all is in force %q and %v are told", b.failing, b.refused)
	}
}

// TestConfigsAreMeasuredByField: of a config nothing is told among the metrics but the field.
func TestConfigsAreMeasuredByField(t *testing.T) {
	for why, want := range map[string]string{
		"Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s)": "not taken: ClusterValidationError.ConnectTimeout",
		"invalid value in ListenerValidationError.FilterChains[0].Filters[1]: password hunter2":                     "not taken: ListenerValidationError.FilterChains[0].Filters[1]",
		"unknown word hunter2": "not taken",
	} {
		if got := fieldOf(why); got != want {
			t.Errorf("of %q %q is told, want %q", why, got, want)
		}
	}
}
