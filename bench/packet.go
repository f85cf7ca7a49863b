package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// path is how long the gate takes for a packet on one way through it.
type path struct {
	Name string
	NS   spread
}

var benchLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/packet`)

// packets has the kernel measure the gate's programs, packet by packet: the benchmarks
// of package bpf, some times over.
func (o *options) packets(ctx context.Context) ([]path, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "./bpf", "-run", "^$", "-bench", "Path|Allowed|Unmatched|Denied|Established",
		"-benchtime", "4000x", "-count", strconv.Itoa(o.rounds))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run the benchmarks of bpf: %w: %s", err, out)
	}
	found := map[string][]float64{}
	var names []string
	for _, m := range benchLine.FindAllStringSubmatch(string(out), -1) {
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, fmt.Errorf("read the benchmarks of bpf: %w", err)
		}
		if found[m[1]] == nil {
			names = append(names, m[1])
		}
		found[m[1]] = append(found[m[1]], ns)
	}
	var all []path
	for _, n := range names {
		all = append(all, path{n, spreadOf(found[n])})
	}
	return all, nil
}

func pathTable(b *bytes.Buffer, paths []path) {
	fmt.Fprint(b, "\n| path | ns a packet |\n|---|---|\n")
	for _, p := range paths {
		fmt.Fprintf(b, "| %s | %.0f (%.0f–%.0f) |\n", p.Name, p.NS.Median, p.NS.Least, p.NS.Most)
	}
}
