package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/observe"
)

// Output formats of every listing.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// addOutput gives a command the -o flag.
func addOutput(c *cobra.Command) { addOutputDefault(c, formatTable) }

func addOutputDefault(c *cobra.Command, format string) {
	c.Flags().StringP("output", "o", format, "output format: table, json or yaml")
	complete := cobra.FixedCompletions([]string{formatTable, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp)
	mustRegister(c.RegisterFlagCompletionFunc("output", complete))
	preRun := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if _, err := outputFormat(c); err != nil {
			return err
		}
		if preRun != nil {
			return preRun(c, args)
		}
		return nil
	}
}

// mustRegister stops a binary whose commands are put together wrongly.
func mustRegister(err error) {
	if err != nil {
		panic(err)
	}
}

func outputFormat(c *cobra.Command) (string, error) {
	format, err := c.Flags().GetString("output")
	if err != nil {
		return "", err
	}
	switch format {
	case formatTable, formatJSON, formatYAML:
		return format, nil
	}
	return "", usagef("unknown output format %q: write table, json or yaml", format)
}

// show writes v as JSON or YAML, or calls table, as -o asks.
func show(c *cobra.Command, v any, table func(io.Writer) error) error {
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	var text []byte
	switch format {
	case formatJSON:
		text, err = encodeJSON(v)
	case formatYAML:
		text, err = encodeYAML(v)
	default:
		return table(c.OutOrStdout())
	}
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = c.OutOrStdout().Write(text)
	return err
}

// encodeJSON indents, and escapes what a terminal would act on: encoding/json
// leaves DEL, C1 and bidirectional controls as they are.
func encodeJSON(v any) ([]byte, error) { return encode(v, `\u%04x`) }

// encodeYAML shows those as text: what YAML's writer quotes is not ours to say.
func encodeYAML(v any) ([]byte, error) {
	text, err := encode(v, `\\u%04x`)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(text)
}

// encode writes JSON with unprintable characters, which can be in strings only,
// in the given form.
func encode(v any, form string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if bytes.IndexFunc(buf.Bytes(), unprintable) < 0 {
		return buf.Bytes(), nil
	}
	var out bytes.Buffer
	for _, r := range buf.String() {
		if !unprintable(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&out, form, unit)
		}
	}
	return out.Bytes(), nil
}

func unprintable(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// clean makes a text of unknown origin safe for one cell of a table.
func clean(s string) string { return observe.Printable(s) }

// cleanText is clean for text of several lines.
func cleanText(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		words := strings.Split(strings.TrimSuffix(line, "\r"), "\t")
		for j, w := range words {
			words[j] = clean(w)
		}
		lines[i] = strings.Join(words, "\t")
	}
	return strings.Join(lines, "\n")
}

// table is rows of cells under headings, aligned by columns.
type table struct{ rows [][]string }

func newTable(headings ...string) *table { return &table{rows: [][]string{headings}} }

// row adds one row; cells are escaped, empty ones are shown as "-".
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		if cells[i] = clean(cell); cell == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out bytes.Buffer
	for _, row := range t.rows {
		for i, cell := range row {
			out.WriteString(cell)
			if i < len(row)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
			}
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}
