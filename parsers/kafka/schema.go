package kafka

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// schemaText says how every message looks, version by version. It is made from
// Kafka's own definitions; see schema/generate.go.
//
//go:embed schema.txt
var schemaText string

// kind of a field. Those behind kindStruct name what rules are about.
type kind uint8

const (
	kindFixed  kind = iota // of size bytes
	kindString             // may be null
	kindBytes              // may be null
	kindError              // an error code
	kindStruct
	kindTopic
	kindTopicID
	kindTopicRegex
	kindGroup
	kindTransaction
	kindResourceType // what the resource that follows is
	kindResource
	kindCoordinator // a group or a transactional id, by kindCoordinatorType
	kindCoordinatorType
)

// versions is a range, ends included.
type versions struct{ from, to int16 }

func (v versions) has(n int16) bool { return n >= v.from && n <= v.to }

var never = versions{1, 0}

type field struct {
	name     string
	kind     kind
	size     int // kindFixed
	array    bool
	versions versions
	null     versions
	tagged   versions
	tag      uint32
	fields   []field
	names    bool // it or something in it is what rules are about
}

// message is the layout of a request or a response.
type message struct {
	versions versions
	flexible int16 // from this version on
	fields   []field
}

// api is what is known of an API: of each version, a layout.
type api struct {
	key                 int16
	versions            versions // that can be read and answered
	requests, responses []message
}

func (a *api) request(version int16) *message  { return find(a.requests, version) }
func (a *api) response(version int16) *message { return find(a.responses, version) }

func find(list []message, version int16) *message {
	for i := range list {
		if list[i].versions.has(version) {
			return &list[i]
		}
	}
	return nil
}

// apis are all that are known, by key.
var apis = sync.OnceValue(func() map[int16]*api {
	known, err := parseSchema(schemaText)
	if err != nil {
		panic(err) // a test reads it too
	}
	return known
})

var kinds = map[string]field{
	"bool": {size: 1}, "int8": {size: 1}, "int16": {size: 2}, "uint16": {size: 2}, "int32": {size: 4}, "int64": {size: 8},
	"float64": {size: 8}, "uuid": {size: 16}, "string": {kind: kindString}, "bytes": {kind: kindBytes}, "records": {kind: kindBytes},
	"struct": {kind: kindStruct}, "topic": {kind: kindTopic}, "topicid": {kind: kindTopicID}, "topicregex": {kind: kindTopicRegex},
	"group": {kind: kindGroup}, "transaction": {kind: kindTransaction}, "resource": {kind: kindResource},
	"resourcetype": {kind: kindResourceType}, "coordinator": {kind: kindCoordinator}, "coordinatortype": {kind: kindCoordinatorType},
}

func parseSchema(text string) (map[int16]*api, error) {
	known := map[int16]*api{}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for len(lines) > 0 {
		var direction string
		var key, from, to, flexible int16
		if _, err := fmt.Sscanf(lines[0], "%s %d %d-%d %d", &direction, &key, &from, &to, &flexible); err != nil {
			return nil, fmt.Errorf("read schema: %q: %w", lines[0], err)
		}
		fields, rest, err := parseFields(lines[1:], 1)
		if err != nil {
			return nil, err
		}
		lines = rest
		a := known[key]
		if a == nil {
			a = &api{key: key, versions: never}
			known[key] = a
		}
		m := message{versions: versions{from, to}, flexible: flexible, fields: fields}
		if direction == "request" {
			a.requests = append(a.requests, m)
		} else {
			a.responses = append(a.responses, m)
		}
	}
	for key, a := range known {
		request := kmsg.RequestForKey(key)
		if request == nil {
			delete(known, key)
			continue
		}
		for _, m := range a.requests {
			if a.versions == never {
				a.versions = m.versions
			}
			a.versions.from, a.versions.to = min(a.versions.from, m.versions.from), max(a.versions.to, m.versions.to)
		}
		a.versions.to = min(a.versions.to, request.MaxVersion())
	}
	known[keySaslHandshake].versions.from = 1 // what follows version 0 has no header
	return known, nil
}

// parseFields reads the fields at a depth, which is how far they are indented.
func parseFields(lines []string, depth int) (fields []field, rest []string, err error) {
	for len(lines) > 0 {
		trimmed := strings.TrimLeft(lines[0], " ")
		if len(lines[0])-len(trimmed) < depth {
			break
		}
		f, err := parseField(strings.Fields(trimmed))
		if err != nil {
			return nil, nil, fmt.Errorf("read schema: %q: %w", lines[0], err)
		}
		if f.fields, lines, err = parseFields(lines[1:], depth+1); err != nil {
			return nil, nil, err
		}
		f.names = f.kind > kindStruct
		for i := range f.fields {
			f.names = f.names || f.fields[i].names
		}
		fields = append(fields, f)
	}
	return fields, lines, nil
}

func parseField(words []string) (field, error) {
	if len(words) < 3 {
		return field{}, fmt.Errorf("too short")
	}
	name, array := strings.CutPrefix(words[1], "[]")
	f, ok := kinds[name]
	if !ok {
		return field{}, fmt.Errorf("kind %q is not known", name)
	}
	f.name, f.array, f.null, f.tagged = words[0], array, never, never
	if strings.HasSuffix(f.name, "ErrorCode") && words[1] == "int16" {
		f.kind = kindError
	}
	var err error
	if f.versions, err = parseVersions(words[2]); err != nil {
		return field{}, err
	}
	for rest := words[3:]; len(rest) > 0; {
		switch {
		case rest[0] == "null" && len(rest) > 1:
			f.null, err = parseVersions(rest[1])
			rest = rest[2:]
		case rest[0] == "tag" && len(rest) > 2:
			var tag uint64
			tag, err = strconv.ParseUint(rest[1], 10, 32)
			f.tag = uint32(tag)
			f.tagged = versions{0, f.versions.to}
			if err == nil {
				_, err = fmt.Sscan(rest[2], &f.tagged.from)
			}
			rest = rest[3:]
		default:
			err = fmt.Errorf("%q is not known", rest[0])
		}
		if err != nil {
			return field{}, err
		}
	}
	return f, nil
}

func parseVersions(s string) (v versions, err error) {
	_, err = fmt.Sscanf(s, "%d-%d", &v.from, &v.to)
	return v, err
}
