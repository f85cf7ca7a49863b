package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// split cuts a file into its documents, empty ones left out. JSON objects follow
// one another; YAML documents begin with a line "---".
func split(data []byte) [][]byte {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		if docs, err := splitJSON(trimmed); err == nil {
			return docs
		} // it may still be YAML in flow style
	}
	var docs [][]byte
	var doc []byte
	flush := func() {
		if !blank(doc) {
			docs = append(docs, doc)
		}
		doc = nil
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("---")); ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r' || rest[0] == '\n') {
			flush()
			line = rest
		}
		doc = append(doc, line...)
	}
	flush()
	return docs
}

// splitJSON also breaks the lines anew, without the tabs that YAML dislikes.
func splitJSON(data []byte) ([][]byte, error) {
	var docs [][]byte
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		var doc bytes.Buffer
		if err := json.Indent(&doc, raw, "", "  "); err != nil {
			return nil, err
		}
		docs = append(docs, doc.Bytes())
	}
}

// blank reports whether there is nothing but comments.
func blank(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// parse returns the root of the one document in data.
func parse(data []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var node, more yaml.Node
	if err := decoder.Decode(&node); err != nil {
		return nil, fmt.Errorf("is not YAML: %w", err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after its end; write --- between documents")
	}
	if node.Kind != yaml.DocumentNode || len(node.Content) != 1 {
		return nil, errors.New("is empty")
	}
	return node.Content[0], nil
}
