package kafka

import (
	"reflect"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka's error codes that answers of our own carry.
const (
	codeTopicDenied        int16 = 29 // TOPIC_AUTHORIZATION_FAILED
	codeGroupDenied        int16 = 30 // GROUP_AUTHORIZATION_FAILED
	codeClusterDenied      int16 = 31 // CLUSTER_AUTHORIZATION_FAILED
	codeUnsupportedVersion int16 = 35 // UNSUPPORTED_VERSION
	codeTransactionDenied  int16 = 53 // TRANSACTIONAL_ID_AUTHORIZATION_FAILED
	codeNoFetchSession     int16 = 70 // FETCH_SESSION_ID_NOT_FOUND
	codeUnknownTopicID     int16 = 100
	codeNoShareSession     int16 = 122 // SHARE_SESSION_NOT_FOUND
)

// codes says with which error each thing that a request names is denied.
type codes struct {
	other int16            // what has none of its own
	named map[string]int16 // by topic, topic id, group or transactional id
}

func (c *codes) add(it *item) {
	if c.named == nil {
		c.named = map[string]int16{}
	}
	if c.other == 0 {
		c.other = it.code
	}
	switch {
	case it.byID:
		c.named[string(it.id[:])] = it.code
	case it.topic != "":
		c.named[it.topic] = it.code
	case it.group != "":
		c.named[it.group] = it.code
	case it.transaction != "":
		c.named[it.transaction] = it.code
	}
}

// denial makes the answer to a request of which everything is denied. Answers
// mirror requests: a list of topics with partitions comes back as one, with an
// error in each. It is done by the names of the fields, which are the same in
// both but for those in mirrored.
func denial(request kmsg.Request, c codes) kmsg.Response {
	response := request.ResponseKind()
	byDefault(reflect.ValueOf(response))
	response.SetVersion(request.GetVersion())
	from, to := reflect.ValueOf(request).Elem(), reflect.ValueOf(response).Elem()
	coded := mirror(from, to, &c, c.other)
	code := to.FieldByName("ErrorCode")
	if code.IsValid() && (!coded || c.other != codeTopicDenied && c.other != codeUnknownTopicID) {
		code.SetInt(int64(c.other))
	}
	switch r := response.(type) {
	case *kmsg.FetchResponse:
		if coded {
			r.ErrorCode = 0
		}
		r.SessionID = 0
	case *kmsg.AlterReplicaLogDirsResponse:
		for _, dir := range request.(*kmsg.AlterReplicaLogDirsRequest).Dirs {
			appendMirrored(reflect.ValueOf(dir.Topics), to.FieldByName("Topics"), &c, c.other)
		}
	case *kmsg.AlterUserSCRAMCredentialsResponse:
		q := request.(*kmsg.AlterUserSCRAMCredentialsRequest)
		users := make([]string, 0, len(q.Deletions)+len(q.Upsertions))
		for _, d := range q.Deletions {
			users = append(users, d.Name)
		}
		for _, u := range q.Upsertions {
			users = append(users, u.Name)
		}
		appendMirrored(reflect.ValueOf(users), to.FieldByName("Results"), &c, c.other)
	case *kmsg.DescribeLogDirsResponse:
		if r.Version < 3 { // no field for an error but in a directory
			r.Dirs = []kmsg.DescribeLogDirsResponseDir{{ErrorCode: c.other}}
		}
	}
	return response
}

// mirrored are lists of answers that mirror one of another name.
var mirrored = map[string][]string{
	"Topics":            {"Topics", "TopicNames"},
	"Groups":            {"Groups", "GroupIDs"},
	"Coordinators":      {"CoordinatorKeys"},
	"Results":           {"Creations", "Filters", "FeatureUpdates"},
	"TransactionStates": {"TransactionalIDs"},
}

// echoed are fields that an answer repeats.
var echoed = []string{
	"Topic", "TopicID", "Partition", "Group", "GroupID", "TransactionalID", "ResourceType", "ResourceName", "ProducerID", "Key",
	"MemberID", "InstanceID", "Feature", "Entity",
}

// mirror fills an answer, or a part of one, from its request, and says whether an
// error was put further in.
func mirror(from, to reflect.Value, c *codes, code int16) (coded bool) {
	for _, name := range echoed {
		f, t := from.FieldByName(name), to.FieldByName(name)
		if !f.IsValid() || !t.IsValid() {
			continue
		}
		if own, ok := c.named[text(f)]; ok {
			code = own
		}
		assign(f, t)
	}
	for i := range to.NumField() {
		field := to.Type().Field(i)
		if field.Type.Kind() != reflect.Slice || field.Type.Elem().Kind() != reflect.Struct {
			continue
		}
		names := mirrored[field.Name]
		if names == nil {
			names = []string{field.Name}
		}
		for _, name := range names {
			if list := from.FieldByName(name); list.IsValid() && list.Kind() == reflect.Slice {
				coded = appendMirrored(list, to.Field(i), c, code) || coded
			}
		}
	}
	return coded
}

func appendMirrored(from, to reflect.Value, c *codes, code int16) (coded bool) {
	for i := range from.Len() {
		f, t := from.Index(i), reflect.New(to.Type().Elem())
		byDefault(t)
		own, inner := code, false
		if f.Kind() == reflect.Struct {
			own = codeOf(f, c, code)
			inner = mirror(f, t.Elem(), c, own)
		} else if field := firstOf(t.Elem(), f.Kind()); field.IsValid() {
			if known, ok := c.named[text(f)]; ok {
				own = known
			}
			assign(f, field)
		}
		if e := t.Elem().FieldByName("ErrorCode"); e.IsValid() {
			if !inner || own != codeTopicDenied && own != codeUnknownTopicID {
				e.SetInt(int64(own))
			}
			coded = true
		}
		coded = coded || inner
		if b := t.Elem().FieldByName("RecordBatches"); b.IsValid() {
			b.SetBytes([]byte{}) // none, but not null
		}
		to.Set(reflect.Append(to, t.Elem()))
	}
	return coded
}

// codeOf is the error for an element of a request.
func codeOf(f reflect.Value, c *codes, code int16) int16 {
	for _, name := range echoed {
		if v := f.FieldByName(name); v.IsValid() {
			if own, ok := c.named[text(v)]; ok && text(v) != "" {
				return own
			}
		}
	}
	return code
}

// firstOf finds the field of an element that repeats a bare string or number.
func firstOf(to reflect.Value, kind reflect.Kind) reflect.Value {
	for i := range to.NumField() {
		t := to.Field(i)
		if name := to.Type().Field(i).Name; name == "ErrorCode" || name == "Version" || strings.HasPrefix(name, "ErrorM") {
			continue
		}
		if t.Kind() == kind || t.Kind() == reflect.Pointer && t.Type().Elem().Kind() == kind {
			return t
		}
	}
	return reflect.Value{}
}

// text is what identifies: a string, or the bytes of an id.
func text(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return text(v.Elem())
	case v.Kind() == reflect.String:
		return v.String()
	}
	if id, ok := v.Interface().([16]byte); ok && id != [16]byte{} {
		return string(id[:])
	}
	return ""
}

func assign(from, to reflect.Value) {
	switch {
	case from.Type().AssignableTo(to.Type()):
		to.Set(from)
	case to.Kind() == reflect.Pointer && from.Type().AssignableTo(to.Type().Elem()):
		p := reflect.New(to.Type().Elem())
		p.Elem().Set(from)
		to.Set(p)
	case from.Kind() == reflect.Pointer && !from.IsNil() && from.Type().Elem().AssignableTo(to.Type()):
		to.Set(from.Elem())
	}
}

func byDefault(v reflect.Value) {
	if d, ok := v.Interface().(interface{ Default() }); ok {
		d.Default()
	}
}
