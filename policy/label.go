package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Where labels come from. SourceAny stands in selectors only, for every source.
const (
	SourceAny      = "any"
	SourceK8s      = "k8s"
	SourceReserved = "reserved"
	SourceCIDR     = "cidr"
)

// Label is one property of an identity, and who says so.
type Label struct{ Source, Key, Value string }

// String is the label as people write it: "k8s:org=empire", "reserved:host".
func (l Label) String() string {
	if l.Value == "" {
		return l.Source + ":" + l.Key
	}
	return l.Source + ":" + l.Key + "=" + l.Value
}

func compareLabels(a, b Label) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Value, b.Value))
}

// Labels is a set of labels, at most one for each source and key. It does not
// change once made.
type Labels struct {
	list []Label // sorted by key, then source
}

// NewLabels makes a set. Two values for one source and key are an error.
func NewLabels(labels ...Label) (Labels, error) {
	list := slices.Clone(labels)
	slices.SortFunc(list, compareLabels)
	list = slices.Compact(list)
	for i, l := range list {
		if l.Source == "" || l.Source == SourceAny {
			return Labels{}, fmt.Errorf("label %q: a label needs a source of its own", l.Key)
		}
		if i > 0 && l.Key == list[i-1].Key && l.Source == list[i-1].Source {
			return Labels{}, fmt.Errorf("label %s:%s has two values, %q and %q", l.Source, l.Key, list[i-1].Value, l.Value)
		}
	}
	return Labels{list}, nil
}

// Len counts the labels.
func (s Labels) Len() int { return len(s.list) }

// All returns the labels in order. The slice is the caller's.
func (s Labels) All() []Label { return slices.Clone(s.list) }

// Equal reports whether both sets hold the same labels.
func (s Labels) Equal(o Labels) bool { return slices.Equal(s.list, o.list) }

// String joins the labels with commas. Equal sets give equal strings.
func (s Labels) String() string {
	words := make([]string, len(s.list))
	for i, l := range s.list {
		words[i] = l.String()
	}
	return strings.Join(words, ",")
}

// Strings returns each label as people write it, in order.
func (s Labels) Strings() []string {
	words := make([]string, len(s.list))
	for i, l := range s.list {
		words[i] = l.String()
	}
	return words
}

// withKey returns the labels of one key, one for each source.
func (s Labels) withKey(key string) []Label {
	from, _ := slices.BinarySearchFunc(s.list, key, func(l Label, k string) int { return cmp.Compare(l.Key, k) })
	to := from
	for to < len(s.list) && s.list[to].Key == key {
		to++
	}
	return s.list[from:to]
}

// Get returns the value of a key. With SourceAny the first source that has the
// key answers.
func (s Labels) Get(source, key string) (string, bool) {
	for _, l := range s.withKey(key) {
		if source == SourceAny || source == l.Source {
			return l.Value, true
		}
	}
	return "", false
}

// Has reports whether the key is there.
func (s Labels) Has(source, key string) bool {
	_, ok := s.Get(source, key)
	return ok
}

// hasValue reports whether some label of the key has one of the values.
func (s Labels) hasValue(source, key string, values []string) bool {
	for _, l := range s.withKey(key) {
		if (source == SourceAny || source == l.Source) && slices.Contains(values, l.Value) {
			return true
		}
	}
	return false
}

var (
	errLabelKey   = errors.New("is not a label key; write a name of at most 63 letters, digits, '-', '_' and '.', which may follow a DNS name and a '/'")
	errLabelValue = errors.New("is not a label value; write at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
)

// ValidateLabelKey checks a key (without its source) by Kubernetes' rules.
func ValidateLabelKey(key string) error {
	prefix, name, found := strings.Cut(key, "/")
	if !found {
		prefix, name = "", key
	} else if len(prefix) > 253 || !isDNSName(prefix) {
		return fmt.Errorf("%q %w", key, errLabelKey)
	}
	if name == "" || len(name) > 63 || !isLabelWord(name) {
		return fmt.Errorf("%q %w", key, errLabelKey)
	}
	return nil
}

// ValidateLabelValue checks a value by Kubernetes' rules; empty is valid.
func ValidateLabelValue(value string) error {
	if value != "" && (len(value) > 63 || !isLabelWord(value)) {
		return fmt.Errorf("%q %w", value, errLabelValue)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isLabelWord: letters, digits, '-', '_', '.', with a letter or digit at both ends.
func isLabelWord(s string) bool {
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1 && (s[i] == '-' || s[i] == '_' || s[i] == '.')
		if !isAlphanumeric(s[i]) && !inner {
			return false
		}
	}
	return s != ""
}

// isDNSName: labels of lower-case letters, digits and '-', joined by dots.
func isDNSName(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for i := range len(part) {
			c := part[i]
			if c != '-' && (!isAlphanumeric(c) || c >= 'A' && c <= 'Z') {
				return false
			}
		}
	}
	return true
}

// ValidateName checks the name of an object (a policy, a service account).
func ValidateName(name string) error {
	if len(name) > 253 || !isDNSName(name) {
		return fmt.Errorf("%q is not a name; write lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit", name)
	}
	return nil
}

// ValidateNamespace checks the name of a namespace.
func ValidateNamespace(name string) error {
	if len(name) > 63 || strings.Contains(name, ".") || !isDNSName(name) {
		return fmt.Errorf("%q is not a namespace; write at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit", name)
	}
	return nil
}

// IsPortName reports whether it is an IANA service name: at most 15 letters, digits and single inner
// dashes, with a letter in it.
func IsPortName(s string) bool {
	if s == "" || len(s) > 15 || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "--") {
		return false
	}
	letter := false
	for i := range len(s) {
		switch c := s[i] | 0x20; {
		case c >= 'a' && c <= 'z':
			letter = true
		case s[i] != '-' && (s[i] < '0' || s[i] > '9'):
			return false
		}
	}
	return letter
}
