package verdict

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Texts is keys and values. Files may write the values as numbers or booleans,
// as YAML tempts to: what is written counts.
type Texts map[string]string

// UnmarshalJSON reads keys with values of any simple kind.
func (t *Texts) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	*t = Texts{}
	for key, value := range raw {
		s, err := text(value)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		(*t)[key] = s
	}
	return nil
}

// Headers is names and values in order. Files may write an object as well.
type Headers [][]string

// UnmarshalJSON reads a list of pairs, or an object.
func (h *Headers) UnmarshalJSON(data []byte) error {
	*h = nil
	var object Texts
	if strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
		if err := json.Unmarshal(data, &object); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(object)) {
			*h = append(*h, []string{name, object[name]})
		}
		return nil
	}
	var raw [][]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	for _, pair := range raw {
		var words []string
		for _, value := range pair {
			s, err := text(value)
			if err != nil {
				return fmt.Errorf("header: %w", err)
			}
			words = append(words, s)
		}
		*h = append(*h, words)
	}
	return nil
}

func text(value json.RawMessage) (string, error) {
	raw := string(value)
	switch {
	case raw == "null":
		return "", nil
	case strings.HasPrefix(raw, "{") || strings.HasPrefix(raw, "["):
		return "", fmt.Errorf("%s is no text", raw)
	case !strings.HasPrefix(raw, `"`):
		return raw, nil
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err
}
