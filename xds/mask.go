package xds

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	udpaannotations "github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// masked stands where a secret was.
const masked = "[masked]"

// renderMasked writes a resource as JSON without what must not be seen: fields that Envoy's
// schema calls sensitive, and the values of secrets wherever they stand.
func renderMasked(m proto.Message, secrets []string) ([]byte, error) {
	m = proto.Clone(m)
	hideSensitive(m.ProtoReflect())
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	return json.Marshal(hideValues(tree, spellings(secrets)))
}

// spellings are the forms in which a value may stand in a resource.
func spellings(secrets []string) []string {
	var out []string
	for _, s := range secrets {
		if s != "" {
			for _, form := range []string{s, escaped(s), regexp.QuoteMeta(s), regexp.QuoteMeta(escaped(s))} {
				quoted := strconv.Quote(form) // as in Envoy's messages
				out = append(out, form, quoted[1:len(quoted)-1])
			}
			out = append(out, base64.StdEncoding.EncodeToString([]byte(s)))
		}
	}
	// A longer one may hold a shorter one, of which the rest would be left.
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(out)
}

// maskText is a text without the values of secrets.
func maskText(text string, secrets []string) string {
	for _, s := range spellings(secrets) {
		text = strings.ReplaceAll(text, s, masked)
	}
	return text
}

func hideValues(v any, secrets []string) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			v[k] = hideValues(x, secrets)
		}
	case []any:
		for i, x := range v {
			v[i] = hideValues(x, secrets)
		}
	case string:
		for _, s := range secrets {
			if strings.Contains(v, s) {
				return masked
			}
		}
	}
	return v
}

// hideSensitive empties sensitive fields, those of packed messages too. What cannot be
// unpacked is left out whole.
func hideSensitive(m protoreflect.Message) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err == nil {
			hideSensitive(inner.ProtoReflect())
			err = packed.MarshalFrom(inner)
		}
		if err != nil {
			packed.Reset()
		}
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case sensitive(f):
			hide(m, f)
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, x protoreflect.Value) bool {
					hideSensitive(x.Message())
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				hideSensitive(v.List().Get(i).Message())
			}
		default:
			hideSensitive(v.Message())
		}
		return true
	})
}

func sensitive(f protoreflect.FieldDescriptor) bool {
	yes, ok := proto.GetExtension(f.Options(), udpaannotations.E_Sensitive).(bool)
	return ok && yes
}

// hide leaves a field empty, or with a word where it is text.
func hide(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	if f.Kind() == protoreflect.StringKind && !f.IsList() && !f.IsMap() {
		m.Set(f, protoreflect.ValueOfString(masked))
		return
	}
	m.Clear(f)
}
