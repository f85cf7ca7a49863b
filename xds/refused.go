package xds

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/redirect"
)

// refusedRule is what Envoy did not take, in its own words.
type refusedRule struct{ rule, why string }

// Bounds of what is told of them among the metrics.
const (
	refusedMost  = 100
	refusedBytes = 500
)

// noteFailed has status and metrics tell what is not in force. It is called with mu held.
func (b *Backend) noteFailed() {
	var all []refusedRule
	told := map[redirect.SetNumber]bool{}
	for id, rules := range b.refusals {
		n, ok := b.numbers[id]
		if !ok {
			continue
		}
		told[n] = true
		for name, why := range rules {
			all = append(all, refusedRule{refOf(name).String(), shorten(why)})
		}
	}
	for n, why := range b.failed {
		if l := b.custom.listeners[n]; l != nil {
			all = append(all, refusedRule{l.String(), fieldOf(why)})
		} else if !told[n] {
			all = append(all, refusedRule{"", shorten(why)})
		}
	}
	slices.SortFunc(all, func(x, y refusedRule) int {
		return cmp.Or(strings.Compare(x.rule, y.rule), strings.Compare(x.why, y.why))
	})
	all = slices.Compact(all)
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	b.failing, b.refused = failing(b.failed), all[:min(len(all), refusedMost)]
}

// fieldOf names the field of a config that Envoy, or its schema, does not take. The rest of
// what was said may quote the config, which can hold what nobody but its author knows for a
// secret.
func fieldOf(why string) string {
	if field := invalidField.FindString(why); field != "" {
		return "not taken: " + field
	}
	return "not taken"
}

var invalidField = regexp.MustCompile(`[A-Za-z]+ValidationError\.[A-Za-z0-9_.\[\]]*[A-Za-z0-9_\]]`)

func shorten(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), refusedBytes)], "")
}

// refusedNow has what is not in force as metrics.
func (b *Backend) refusedNow(out chan<- prometheus.Metric) {
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	desc := prometheus.NewDesc("headgate_envoy_refused", "Rules and listeners of policies that Envoy did not take, with its words.", []string{"rule", "why"}, nil)
	for _, r := range b.refused {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, 1, r.rule, r.why)
	}
}
