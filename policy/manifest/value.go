package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds what one document may hold once its aliases are followed.
const maxValues = 100_000

// Document is one document while it is read: errors and warnings gather in it.
type Document struct {
	file     string
	number   int
	object   string
	errs     Errors
	warnings []string
	values   int // seen so far
}

// Fail notes what is wrong with the field at path, and what to write instead.
func (d *Document) Fail(path, format string, args ...any) {
	d.errs = append(d.errs, &Error{File: d.file, Document: d.number, Object: d.object, Path: path, Message: fmt.Sprintf(format, args...)})
}

// Warn notes what is accepted but probably not meant.
func (d *Document) Warn(path, format string, args ...any) {
	d.warnings = append(d.warnings, path+": "+fmt.Sprintf(format, args...))
}

// Value is a node of a document and its place.
type Value struct {
	doc  *Document
	node *yaml.Node
	Path string
}

// Fail notes what is wrong with the value.
func (v Value) Fail(format string, args ...any) { v.doc.Fail(v.Path, format, args...) }

// Warn notes what is accepted but probably not meant.
func (v Value) Warn(format string, args ...any) { v.doc.Warn(v.Path, format, args...) }

// Failed counts the errors so far.
func (d *Document) Failed() int { return len(d.errs) }

// Failed counts the errors of the document so far.
func (v Value) Failed() int { return len(v.doc.errs) }

// IsSet reports whether there is a value: a field that was not written has none.
func (v Value) IsSet() bool { return v.node != nil }

// Len counts what a list, or twice what a mapping holds.
func (v Value) Len() int { return len(v.node.Content) }

// IsNull reports whether nothing stands behind the key.
func (v Value) IsNull() bool { return v.node.Tag == "!!null" }

// Scalar returns what stands there as it is written, and whether that is a
// number, or else a string.
func (v Value) Scalar() (raw string, number, text bool) {
	scalar := v.node.Kind == yaml.ScalarNode
	return v.node.Value, scalar && v.node.Tag == "!!int", scalar && v.node.Tag == "!!str"
}

func (d *Document) at(node *yaml.Node, path string) Value {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return Value{d, node, path}
}

// spend counts a value; it reports whether the document may go on.
func (v Value) spend() bool {
	v.doc.values++
	if v.doc.values == maxValues {
		v.Fail("the document holds more than %d values; write several policies", maxValues)
	}
	return v.doc.values < maxValues
}

// Describe says in words what stands there.
func (v Value) Describe() string {
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

// Entry is one key of a mapping, as it is written.
type Entry struct {
	Key string
	Value
}

// Mapping returns the entries of a mapping. Keys must be strings and differ.
func (v Value) Mapping() []Entry {
	if v.node.Kind != yaml.MappingNode {
		v.Fail("is %s; write a mapping, {} for an empty one", v.Describe())
		return nil
	}
	var entries []Entry
	seen := map[string]bool{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.doc.at(v.node.Content[i], v.Path)
		if key.node.Kind != yaml.ScalarNode || key.node.Tag != "!!str" {
			v.Fail("has a key that is %s; write plain strings (aliases cannot be merged)", key.Describe())
			continue
		}
		child := v.doc.at(v.node.Content[i+1], join(v.Path, key.node.Value))
		if seen[key.node.Value] {
			child.Fail("is there twice; delete one")
			continue
		}
		seen[key.node.Value] = true
		if !v.spend() {
			return nil
		}
		entries = append(entries, Entry{key.node.Value, child})
	}
	return entries
}

// Keys returns what entries a mapping has, without a look at what is wrong with
// them.
func (v Value) Keys() []Entry {
	var entries []Entry
	if v.node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		name := v.node.Content[i].Value
		entries = append(entries, Entry{name, v.doc.at(v.node.Content[i+1], join(v.Path, name))})
	}
	return entries
}

// Object returns the fields of a mapping whose keys are known. What is neither
// in known nor in refused is an error, as is what is in refused: that tells what
// to write instead.
func (v Value) Object(known []string, refused map[string]string) map[string]Value {
	fields := map[string]Value{}
	for _, e := range v.Mapping() {
		name := e.Key
		if !slices.Contains(known, name) {
			if name = fold(e.Key, known); name != "" {
				e.Warn("is read as %s; write it so", name)
			}
		}
		if name == "" {
			e.refuse(known, refused)
			continue
		}
		if _, twice := fields[name]; twice {
			e.Fail("is there twice, as %s; delete one", name)
			continue
		}
		if e.IsNull() {
			e.Fail("has no value; write one, or delete the key")
			continue
		}
		e.Path = join(v.Path, name)
		fields[name] = e.Value
	}
	return fields
}

func (e Entry) refuse(known []string, refused map[string]string) {
	if advice, ok := refused[e.Key]; ok {
		e.Fail("is not read; %s", advice)
		return
	}
	for name, advice := range refused {
		if strings.EqualFold(name, e.Key) {
			e.Fail("is not read; %s", advice)
			return
		}
	}
	e.Fail("is not a field here; write one of %s", strings.Join(known, ", "))
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

// List returns the items of a list.
func (v Value) List() []Value {
	if v.node.Kind != yaml.SequenceNode {
		v.Fail("is %s; write a list", v.Describe())
		return nil
	}
	items := make([]Value, 0, len(v.node.Content))
	for i, node := range v.node.Content {
		item := v.doc.at(node, fmt.Sprintf("%s[%d]", v.Path, i))
		if !item.spend() {
			return nil
		}
		if item.node.Tag == "!!null" {
			item.Fail("has no value; write one, or delete the item")
			continue
		}
		items = append(items, item)
	}
	return items
}

// Text returns a string. Numbers and booleans are not taken for one: what they
// look like depends on who reads them.
func (v Value) Text() (string, bool) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" {
		if v.node.Kind == yaml.ScalarNode && v.node.Tag != "!!null" {
			v.Fail("is %s; write %q, with the quotes", v.Describe(), v.node.Value)
		} else {
			v.Fail("is %s; write a string", v.Describe())
		}
		return "", false
	}
	return v.node.Value, true
}

// Boolean returns true or false.
func (v Value) Boolean() (value, ok bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!bool" {
		if b, err := strconv.ParseBool(strings.ToLower(v.node.Value)); err == nil {
			return b, true
		}
	}
	v.Fail("is %s; write true or false", v.Describe())
	return false, false
}

// Number returns a whole number from least to most.
func (v Value) Number(least, most int) (int, bool) {
	n, err := strconv.Atoi(v.node.Value)
	if v.node.Tag != "!!int" || err != nil || n < least || n > most || strconv.Itoa(n) != v.node.Value {
		v.Fail("is %s; write a number from %d to %d, without quotes", v.Describe(), least, most)
		return 0, false
	}
	return n, true
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
