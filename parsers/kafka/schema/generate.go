// Command schema writes the layout of Kafka's messages, from the definitions that
// Kafka itself is generated from, in the form that package kafka reads:
//
//	go run ./schema kafka-clients-4.3.1.jar kafka-clients-3.9.2.jar > schema.txt
//
// The first jar says most; an older one adds the versions that it still knew. Only
// what brokers answer to clients is taken.
package main

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type message struct {
	APIKey           int      `json:"apiKey"`
	Type             string   `json:"type"`
	Listeners        []string `json:"listeners"`
	Name             string   `json:"name"`
	ValidVersions    string   `json:"validVersions"`
	Unstable         bool     `json:"latestVersionUnstable"`
	FlexibleVersions string   `json:"flexibleVersions"`
	Fields           []field  `json:"fields"`
	CommonStructs    []field  `json:"commonStructs"`
}

type field struct {
	Name             string  `json:"name"`
	Type             string  `json:"type"`
	Versions         string  `json:"versions"`
	NullableVersions string  `json:"nullableVersions"`
	TaggedVersions   string  `json:"taggedVersions"`
	Tag              any     `json:"tag"` // 3.9 has one in quotes
	EntityType       string  `json:"entityType"`
	FlexibleVersions string  `json:"flexibleVersions"`
	Fields           []field `json:"fields"`
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(jars []string, out io.Writer) error {
	lowest := map[string]int{} // of what was written, by key and type
	serves := map[int]bool{}
	text := map[string]string{}
	for _, jar := range jars {
		messages, err := read(jar)
		if err != nil {
			return fmt.Errorf("read %s: %w", jar, err)
		}
		unstable := map[int]int{} // version that nobody has yet unless they ask for it
		for _, m := range messages {
			_, high, ok := bounds(m.ValidVersions)
			if slices.Contains(m.Listeners, "broker") && ok {
				serves[m.APIKey] = true
			}
			if m.Unstable {
				unstable[m.APIKey] = high
			}
		}
		for _, m := range messages {
			low, high, ok := bounds(m.ValidVersions)
			id := fmt.Sprintf("%03d %s", m.APIKey, m.Type)
			if !ok || !serves[m.APIKey] {
				continue
			}
			if top, known := unstable[m.APIKey]; known {
				high = min(high, top-1)
			}
			if above, known := lowest[id]; known {
				high = min(high, above-1)
			}
			if low > high {
				continue
			}
			lowest[id] = low
			text[fmt.Sprintf("%s %03d", id, low)] = m.write(low, high)
		}
	}
	ids := make([]string, 0, len(text))
	for id := range text {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if _, err := io.WriteString(out, text[id]); err != nil {
			return err
		}
	}
	return nil
}

var comment = regexp.MustCompile(`(?m)(^|\s)//.*$`)

func read(jar string) ([]message, error) {
	z, err := zip.OpenReader(jar)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var list []message
	for _, f := range z.File {
		if !strings.HasPrefix(f.Name, "common/message/") || !strings.HasSuffix(f.Name, ".json") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		_ = r.Close()
		if err != nil {
			return nil, err
		}
		var m message
		if err := json.Unmarshal(comment.ReplaceAll(b, nil), &m); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if m.Type == "request" || m.Type == "response" {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b message) int { return strings.Compare(b.Type, a.Type) })
	slices.SortStableFunc(list, func(a, b message) int { return len(b.Listeners) - len(a.Listeners) })
	return list, nil
}

// bounds of "0-3", "2" or "1+".
func bounds(s string) (low, high int, ok bool) {
	if s == "" || s == "none" {
		return 0, 0, false
	}
	first, last, isRange := strings.Cut(s, "-")
	if open := strings.TrimSuffix(s, "+"); open != s {
		first, last, isRange = open, "32767", true
	}
	low, err := strconv.Atoi(first)
	if err != nil {
		return 0, 0, false
	}
	if !isRange {
		return low, low, true
	}
	high, err = strconv.Atoi(last)
	return low, high, err == nil
}

func (m message) write(low, high int) string {
	var b strings.Builder
	flexible, _, ok := bounds(m.FlexibleVersions)
	if !ok {
		flexible = 32767
	}
	fmt.Fprintf(&b, "%s %d %d-%d %d %s\n", m.Type, m.APIKey, low, high, flexible, m.Name)
	m.fields(&b, m.Fields, 1, low, high)
	return b.String()
}

func (m message) fields(b *strings.Builder, list []field, depth, low, high int) {
	configs := slices.Contains([]int{32, 33, 44}, m.APIKey)
	coordinator := m.APIKey == 10 && (depth > 1 || m.Type == "request")
	for _, f := range list {
		from, to, ok := bounds(f.Versions)
		if from, to = max(from, low), min(to, high); !ok || from > to {
			continue
		}
		kind, array := strings.CutPrefix(f.Type, "[]")
		nested := f.Fields
		for _, c := range m.CommonStructs {
			if c.Name == kind {
				nested = c.Fields
			}
		}
		if kind[0] >= 'A' && kind[0] <= 'Z' {
			kind = "struct"
		}
		switch {
		case f.EntityType == "topicName" && kind == "string":
			kind = "topic"
		case kind == "uuid" && strings.HasPrefix(f.Name, "TopicId"):
			kind = "topicid"
		case configs && (f.Name == "ResourceName" || f.Name == "ResourceType"):
			kind = strings.ToLower(strings.TrimSuffix(f.Name, "Name"))
		case coordinator && (f.Name == "Key" || f.Name == "CoordinatorKeys"):
			kind = "coordinator"
		case coordinator && f.Name == "KeyType":
			kind = "coordinatortype"
		case kind == "string" && strings.HasSuffix(f.Name, "TopicRegex"):
			kind = "topicregex"
		case (f.EntityType == "groupId" || f.Name == "GroupId") && kind == "string":
			kind = "group"
		case f.EntityType == "transactionalId" && kind == "string":
			kind = "transaction"
		}
		if array {
			kind = "[]" + kind
		}
		fmt.Fprintf(b, "%s%s %s %d-%d", strings.Repeat(" ", depth), f.Name, kind, from, to)
		if null, end, ok := bounds(f.NullableVersions); ok && max(null, from) <= min(end, to) {
			fmt.Fprintf(b, " null %d-%d", max(null, from), min(end, to))
		}
		if tagged, _, ok := bounds(f.TaggedVersions); ok && tagged <= to {
			fmt.Fprintf(b, " tag %v %d", f.Tag, max(tagged, from))
		}
		if f.FlexibleVersions == "none" {
			b.WriteString(" rigid")
		}
		b.WriteByte('\n')
		m.fields(b, nested, depth+1, low, high)
	}
}
