package cnp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds what one document may hold once its aliases are followed.
const maxValues = 100_000

// document is one document while it is read: errors and warnings gather in it.
type document struct {
	file     string
	number   int
	object   string
	errs     Errors
	warnings []string
	values   int // seen so far
}

func (d *document) fail(path, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Document: d.number, Object: d.object, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (d *document) warn(path, format string, args ...any) {
	d.warnings = append(d.warnings, path+": "+fmt.Sprintf(format, args...))
}

// value is a node and its place.
type value struct {
	doc  *document
	node *yaml.Node
	path string
}

func (v value) fail(format string, args ...any) { v.doc.fail(v.path, format, args...) }
func (v value) warn(format string, args ...any) { v.doc.warn(v.path, format, args...) }

func (d *document) value(node *yaml.Node, path string) value {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return value{d, node, path}
}

// spend counts a value; it reports whether the document may go on.
func (v value) spend() bool {
	v.doc.values++
	if v.doc.values == maxValues {
		v.fail("the document holds more than %d values; write several policies", maxValues)
	}
	return v.doc.values < maxValues
}

// kind says in words what stands there.
func (v value) kind() string {
	switch v.node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch v.node.Tag {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + v.node.Value
	case "!!bool":
		return "the boolean " + v.node.Value
	}
	return strconv.Quote(v.node.Value)
}

// entry is one key of a mapping, as it is written.
type entry struct {
	key string
	value
}

// mapping returns the entries of a mapping. Keys must be strings and differ.
func (v value) mapping() []entry {
	if v.node.Kind != yaml.MappingNode {
		v.fail("is %s; write a mapping, {} for an empty one", v.kind())
		return nil
	}
	var entries []entry
	seen := map[string]bool{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.doc.value(v.node.Content[i], v.path)
		if key.node.Kind != yaml.ScalarNode || key.node.Tag != "!!str" {
			v.fail("has a key that is %s; write plain strings (aliases cannot be merged)", key.kind())
			continue
		}
		child := v.doc.value(v.node.Content[i+1], join(v.path, key.node.Value))
		if seen[key.node.Value] {
			child.fail("is there twice; delete one")
			continue
		}
		seen[key.node.Value] = true
		if !v.spend() {
			return nil
		}
		entries = append(entries, entry{key.node.Value, child})
	}
	return entries
}

// object returns the fields of a mapping whose keys are known. What is neither
// in known nor in refused is an error, as is what is in refused: that tells what
// to write instead.
func (v value) object(known []string, refused map[string]string) map[string]value {
	fields := map[string]value{}
	for _, e := range v.mapping() {
		name := e.key
		if !slices.Contains(known, name) {
			if name = fold(e.key, known); name != "" {
				e.warn("is read as %s; write it so", name)
			}
		}
		if name == "" {
			e.refuse(known, refused)
			continue
		}
		if _, twice := fields[name]; twice {
			e.fail("is there twice, as %s; delete one", name)
			continue
		}
		if e.node.Tag == "!!null" {
			e.fail("has no value; write one, or delete the key")
			continue
		}
		e.path = join(v.path, name)
		fields[name] = e.value
	}
	return fields
}

func (e entry) refuse(known []string, refused map[string]string) {
	if advice, ok := refused[e.key]; ok {
		e.fail("is not supported yet; %s", advice)
		return
	}
	for name, advice := range refused {
		if strings.EqualFold(name, e.key) {
			e.fail("is not supported yet; %s", advice)
			return
		}
	}
	e.fail("is not a field here; write one of %s", strings.Join(known, ", "))
}

// fold returns the known name that differs from key in case only.
func fold(key string, known []string) string {
	for _, name := range known {
		if strings.EqualFold(name, key) {
			return name
		}
	}
	return ""
}

// list returns the items of a list.
func (v value) list() []value {
	if v.node.Kind != yaml.SequenceNode {
		v.fail("is %s; write a list", v.kind())
		return nil
	}
	items := make([]value, 0, len(v.node.Content))
	for i, node := range v.node.Content {
		item := v.doc.value(node, fmt.Sprintf("%s[%d]", v.path, i))
		if !item.spend() {
			return nil
		}
		if item.node.Tag == "!!null" {
			item.fail("has no value; write one, or delete the item")
			continue
		}
		items = append(items, item)
	}
	return items
}

// text returns a string. Numbers and booleans are not taken for one: what they
// look like depends on who reads them.
func (v value) text() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" {
		if v.node.Kind == yaml.ScalarNode && v.node.Tag != "!!null" {
			v.fail("is %s; write %q, with the quotes", v.kind(), v.node.Value)
		} else {
			v.fail("is %s; write a string", v.kind())
		}
		return "", false
	}
	return v.node.Value, true
}

func (v value) boolean() (value, ok bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!bool" {
		if b, err := strconv.ParseBool(strings.ToLower(v.node.Value)); err == nil {
			return b, true
		}
	}
	v.fail("is %s; write true or false", v.kind())
	return false, false
}

// join adds a key to a path; a key that is no plain name is quoted.
func join(path, key string) string {
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return path + "[" + strconv.Quote(key) + "]"
		}
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
