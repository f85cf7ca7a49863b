package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// report is all that one benchmark found.
type report struct {
	Name    string
	Machine machine
	Rounds  int
	Seconds float64  // of a turn
	Places  []placed `json:",omitempty"`
	Paths   []path   `json:",omitempty"`
}

// placed is what was found with processes in one place: pinned or free.
type placed struct {
	Place  string
	Tables []table
}

// machine is what figures depend on.
type machine struct {
	Processor, Kernel, Congestion, Go string
	Cores                             int
}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	read := func(path string) string {
		text, _ := os.ReadFile(path)
		return strings.TrimSpace(string(text))
	}
	m.Kernel = read("/proc/sys/kernel/osrelease")
	m.Congestion = read("/proc/sys/net/ipv4/tcp_congestion_control")
	for lines := bufio.NewScanner(strings.NewReader(read("/proc/cpuinfo"))); lines.Scan(); {
		if _, name, ok := strings.Cut(lines.Text(), "model name\t: "); ok {
			m.Processor = name
			break
		}
	}
	if strings.Contains(read("/proc/cpuinfo"), " hypervisor ") {
		m.Processor += " (virtual)"
	}
	return m
}

// write puts figures, tables and plots into a directory.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	figures, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	files := map[string][]byte{r.Name + ".json": append(figures, '\n'), r.Name + ".md": []byte(r.markdown())}
	for _, p := range r.Places {
		files[r.Name+"-"+p.Place+".svg"] = plot(p.Tables)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

func (r *report) markdown() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s, %d cores, Linux %s, %s, %s. %d rounds, a turn is %g s.\n", r.Name, r.Machine.Processor, r.Machine.Cores,
		r.Machine.Kernel, r.Machine.Congestion, r.Machine.Go, r.Rounds, r.Seconds)
	for _, p := range r.Places {
		for i := range p.Tables {
			t := &p.Tables[i]
			fmt.Fprintf(&b, "\n## %s (%s)\n\n", t.Title, p.Place)
			t.markdown(&b)
		}
	}
	if len(r.Paths) > 0 {
		pathTable(&b, r.Paths)
	}
	return b.String()
}

// markdown writes a row a side. Ratios are those of the rounds, and so are what they
// range over.
func (t *table) markdown(b *bytes.Buffer) {
	rate := func(x *turn) float64 { return x.perSecond(t.Unit) }
	peer := t.row("Envoy")
	if peer == nil {
		peer = t.row("kafka-proxy")
	}
	head := []string{"", t.Unit + "/s", "against " + t.Rows[0].Side}
	if peer != nil {
		head = append(head, "against "+peer.Side, "CPU against "+peer.Side)
	}
	head = append(head, "p50 µs", "p99 µs", "CPU µs"+t.each(), "all CPU µs"+t.each(), "recorded")
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for i := range t.Rows {
		r := &t.Rows[i]
		s := r.each(rate)
		cells := []string{r.Side, fmt.Sprintf("%.0f (%.0f–%.0f)", s.Median, s.Least, s.Most), r.ratio(&t.Rows[0], rate).String()}
		if peer != nil {
			cells = append(cells, r.ratio(peer, rate).String(), r.ratio(peer, (*turn).carried).String())
		}
		cells = append(cells, figure(r.each(func(x *turn) float64 { return x.P50 })), figure(r.each(func(x *turn) float64 { return x.P99 })),
			figure(r.each((*turn).carried)), figure(r.each((*turn).all)), r.recorded())
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

// each says of what processor time is, where that is no request.
func (t *table) each() string {
	if t.Unit == "MB" && t.row("direct") != nil {
		return " a MB"
	}
	return ""
}

func (t *table) row(side string) *row {
	i := slices.IndexFunc(t.Rows, func(r row) bool { return r.Side == side })
	if i < 0 {
		return nil
	}
	return &t.Rows[i]
}

// carried is the processor time of what stands between, a request: with headgate the agent's
// too, who is told of each.
func (t *turn) carried() float64 {
	if t.Carrier == "headgate" {
		return t.CPU["headgate"] + t.CPU["agent"]
	}
	return t.CPU[t.Carrier]
}

// all is that of every process, client and server and agent among them.
func (t *turn) all() (sum float64) {
	for _, used := range t.CPU {
		sum += used
	}
	return sum
}

// recorded is the share of the requests that was recorded. Those of which the answer
// was under way at the end make it a little more than all.
func (r *row) recorded() string {
	var requests, recorded uint64
	for i := range r.Turns {
		requests, recorded = requests+r.Turns[i].Requests, recorded+r.Turns[i].Recorded
	}
	if recorded == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f %%", min(100, 100*float64(recorded)/float64(requests)))
}

func (s spread) String() string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Least, s.Most)
}

func figure(s spread) string {
	switch {
	case s.Median == 0:
		return ""
	case s.Median < 100:
		return fmt.Sprintf("%.1f", s.Median)
	}
	return fmt.Sprintf("%.0f", s.Median)
}
