package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestHistogram(t *testing.T) {
	var h histogram
	var all []int64
	for range 100_000 {
		ns := int64(1) << rand.IntN(40)
		ns += rand.Int64N(ns)
		h.add(ns)
		all = append(all, ns)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.9999} {
		want := float64(all[int(q*float64(len(all)))]) / 1e3
		if got := h.quantile(q); got < want*0.98-0.001 || got > want*1.02+0.001 {
			t.Errorf("quantile %g is %g µs, want %g", q, got, want)
		}
	}
	if got, want := h.quantile(1), float64(all[len(all)-1])/1e3; got != want {
		t.Errorf("the longest is %g µs, want %g", got, want)
	}
}

func TestContentLength(t *testing.T) {
	for head, want := range map[string]int{
		"HTTP/1.1 200 OK\r\ncontent-length: 17\r\nx: y":     17,
		"HTTP/1.1 200 OK\r\nx: y\r\nContent-Length:1048576": 1 << 20,
		"HTTP/1.1 204 No Content\r\nserver: x":              0,
	} {
		if got := contentLength([]byte(head)); got != want {
			t.Errorf("%q has a body of %d bytes, want %d", head, got, want)
		}
	}
}

// someTable is of two sides and two rounds, one side twice as fast in each.
func someTable() table {
	turns := func(n uint64, group string) []turn {
		return []turn{
			{sample: sample{Requests: n, Seconds: 1, P50: 10}, CPU: map[string]float64{"client": 3, group: 20}, Carrier: group, Recorded: n},
			{sample: sample{Requests: 3 * n, Seconds: 1, P50: 30}, CPU: map[string]float64{"client": 3, group: 40}, Carrier: group, Recorded: 3 * n},
		}
	}
	return table{Title: "work <&>", Unit: "requests", Rows: []row{{"Envoy", turns(100, "envoy")}, {"headgate", turns(200, "headgate")}}}
}

func TestRatiosAreOfRounds(t *testing.T) {
	x := someTable()
	got := x.Rows[1].ratio(&x.Rows[0], func(t *turn) float64 { return t.perSecond("requests") })
	if got != (spread{2, 2, 2}) {
		t.Errorf("ratio %+v, want 2 in every round", got)
	}
	if s := x.Rows[1].each((*turn).carried); s != (spread{30, 20, 40}) {
		t.Errorf("processor time %+v", s)
	}
}

func TestReport(t *testing.T) {
	r := report{Name: "x", Places: []placed{{"pinned", []table{someTable()}}}}
	if text := r.markdown(); !strings.Contains(text, "| headgate | 400 (200–600) | 2.00 (2.00–2.00) | 2.00 (2.00–2.00) | 1.00 (1.00–1.00) | 20.0 |  | 30.0 | 33.0 | 100.0 % |") {
		t.Error(text)
	}
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(strings.NewReader(string(plot(r.Places[0].Tables))))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal("the plot is no XML:", err)
		}
	}
}

func TestEnvoyConfiguration(t *testing.T) {
	text, err := yaml.YAMLToJSON([]byte(envoyConfig))
	if err != nil || strings.Contains(string(text), "<<") {
		t.Fatalf("%v: %s", err, text)
	}
}

func TestHalfOfAllRulesStandBeforeTheOneThatMatches(t *testing.T) {
	for _, n := range sizes {
		all := ports(n)
		if len(all) != n || slices.Index(all, "80") != n/2 {
			t.Errorf("%d rules: %d, port 80 is at %d", n, len(all), slices.Index(all, "80"))
		}
		if slices.Sort(all); len(slices.Compact(all)) != n {
			t.Errorf("%d rules: some are there twice", n)
		}
	}
}
