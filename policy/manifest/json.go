package manifest

import (
	"bytes"
	"encoding/json"

	"go.yaml.in/yaml/v3"
)

// JSON returns what stands there as JSON, for values that another schema than ours
// describes. Keys must be strings and differ.
func (v Value) JSON() (text []byte, ok bool) {
	before := v.Failed()
	var out bytes.Buffer
	v.writeJSON(&out)
	return out.Bytes(), v.Failed() == before
}

func (v Value) writeJSON(out *bytes.Buffer) {
	switch v.node.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i, e := range v.Mapping() {
			if i > 0 {
				out.WriteByte(',')
			}
			key, _ := json.Marshal(e.Key)
			out.Write(append(key, ':'))
			e.writeJSON(out)
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, item := range v.List() {
			if i > 0 {
				out.WriteByte(',')
			}
			item.writeJSON(out)
		}
		out.WriteByte(']')
	default:
		var scalar any
		if err := v.node.Decode(&scalar); err != nil {
			v.Fail("is %s, which cannot be read: %v", v.Describe(), err)
			return
		}
		text, err := json.Marshal(scalar)
		if err != nil {
			v.Fail("is %s; write a string, a number or a boolean", v.Describe())
			return
		}
		out.Write(text)
	}
}
