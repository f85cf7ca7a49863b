package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Options of a Printer.
type Options struct {
	Format     string // compact, dict, json, jsonpb or table; "" is compact
	TimeFormat string // one of Hubble's names, "" is StampMilli
	NodeName   bool   // show it
	Numeric    bool   // addresses instead of names
	Color      bool   // in compact and dict; see Terminal
	Errors     io.Writer
}

// Printer writes what GetFlows sends. Strings that may come from the wire cannot
// move the cursor, colour the terminal or start a line of their own.
type Printer struct {
	out     io.Writer
	options Options
	layout  string
	table   *tabwriter.Writer
	lines   int
}

// NewPrinter checks the options.
func NewPrinter(out io.Writer, o Options) (*Printer, error) {
	l, err := layout(o.TimeFormat)
	if err != nil {
		return nil, err
	}
	if o.Errors == nil {
		o.Errors = io.Discard
	}
	p := &Printer{out: out, options: o, layout: l}
	switch o.Format {
	case "":
		p.options.Format = "compact"
	case "table", "tab":
		p.options.Format, p.options.Color = "table", false
		p.table = tabwriter.NewWriter(out, 2, 0, 3, ' ', 0)
	case "JSON", "jsonpb":
		p.options.Format = "json"
	case "compact", "dict", "json":
	default:
		return nil, fmt.Errorf("output format %q is not one of compact, dict, json, jsonpb, table", o.Format)
	}
	return p, nil
}

// Terminal reports whether colours are welcome on the writer: it is a terminal, and
// neither NO_COLOR nor a dumb terminal speaks against them.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Write prints one answer of the server.
func (p *Printer) Write(res *observerpb.GetFlowsResponse) error {
	var err error
	switch {
	case p.options.Format == "json":
		err = p.writeJSON(res)
	case res.GetFlow() != nil:
		err = p.writeFlow(res.GetFlow())
	case res.GetLostEvents() != nil:
		err = p.writeLost(res)
	case res.GetNodeStatus() != nil:
		err = p.writeNodeStatus(res)
	}
	if err != nil {
		return fmt.Errorf("print flow: %w", err)
	}
	return nil
}

// Close prints what was held back to align columns.
func (p *Printer) Close() error {
	if p.table == nil {
		return nil
	}
	if err := p.table.Flush(); err != nil {
		return fmt.Errorf("print flows: %w", err)
	}
	return nil
}

// writeJSON writes one object a line, with the field names of Hubble's CLI.
func (p *Printer) writeJSON(res *observerpb.GetFlowsResponse) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	_, err = io.WriteString(p.out, escapeJSON(string(b))+"\n")
	return err
}

// escapeJSON escapes what JSON allows and a terminal might act on. Such characters
// are inside strings, where the escape means the same.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default: // as a surrogate pair
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return b.String()
}

func (p *Printer) writeFlow(f *flowpb.Flow) error {
	defer func() { p.lines++ }()
	v := p.view(f)
	switch p.options.Format {
	case "table":
		return p.writeRow(v.time, v.node, v.source, v.destination, v.kind, v.verdict, v.summary+v.suffix())
	case "dict":
		return p.writeDict(v)
	}
	node := ""
	if p.options.NodeName {
		node = " [" + v.node + "]"
	}
	_, err := fmt.Fprintf(p.out, "%s%s: %s %s %s %s %s %s %s (%s)%s\n", v.time, node,
		v.left, v.leftID, v.arrow, v.right, v.rightID, v.kind, v.verdict, v.summary, v.suffix())
	return err
}

func (p *Printer) writeRow(at, node, source, destination, kind, verdict, summary string) error {
	if p.lines == 0 {
		if err := p.cells("TIMESTAMP", "NODE", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"); err != nil {
			return err
		}
	}
	return p.cells(at, node, source, destination, kind, verdict, summary)
}

func (p *Printer) cells(at, node string, rest ...string) error {
	row := []string{at}
	if p.options.NodeName {
		row = append(row, node)
	}
	_, err := fmt.Fprintln(p.table, strings.Join(append(row, rest...), "\t"))
	return err
}

func (p *Printer) writeDict(v view) error {
	var b strings.Builder
	if p.lines > 0 {
		b.WriteString("------------\n")
	}
	line := func(key, value string) { fmt.Fprintf(&b, "%11s: %s\n", key, value) }
	line("TIMESTAMP", v.time)
	if p.options.NodeName {
		line("NODE", v.node)
	}
	line("SOURCE", v.source)
	line("DESTINATION", v.destination)
	line("TYPE", v.kind)
	line("VERDICT", v.verdict)
	line("SUMMARY", v.summary)
	if v.reason != "" {
		line("REASON", v.reason)
	}
	if v.rule != "" {
		line("RULE", v.rule)
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

func (p *Printer) writeLost(res *observerpb.GetFlowsResponse) error {
	defer func() { p.lines++ }()
	lost, at := res.GetLostEvents(), p.time(res.GetTime())
	source, n := lost.GetSource().String(), fmt.Sprint(lost.GetNumEventsLost())
	var err error
	switch p.options.Format {
	case "table":
		return p.writeRow(at, clean(res.GetNodeName()), source, "-", "EVENTS LOST", "-", n)
	case "dict":
		return p.writeDict(view{time: at, node: clean(res.GetNodeName()), source: source, destination: "-",
			kind: "EVENTS LOST", verdict: "-", summary: n})
	default:
		_, err = fmt.Fprintf(p.out, "%s: EVENTS LOST: %s %s\n", at, source, n)
	}
	return err
}

// writeNodeStatus is for a relay's news of its nodes, which are no flows.
func (p *Printer) writeNodeStatus(res *observerpb.GetFlowsResponse) error {
	s := res.GetNodeStatus()
	_, err := fmt.Fprintf(p.options.Errors, "%s [%s]: %s: %s %s\n", p.time(res.GetTime()), clean(res.GetNodeName()),
		s.GetStateChange(), clean(strings.Join(s.GetNodeNames(), ", ")), clean(s.GetMessage()))
	return err
}

func (p *Printer) time(ts *timestamppb.Timestamp) string {
	if !ts.IsValid() {
		return "N/A"
	}
	return ts.AsTime().Format(p.layout)
}
