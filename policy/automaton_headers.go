package policy

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// headerIndex lists each rule under one of its headers: the first that has a
// value, else the first. It finds the rules that may match a request in the time
// that it takes to read the request's headers.
type headerIndex struct {
	without []uint32 // rules without headers
	names   map[string]*headerLists
	lengths uint64 // of names: bit n&63 for n bytes
	longest int    // of names
}

type headerLists struct {
	present []uint32            // rules that want the header to be there
	values  map[string][]uint32 // rules that want a value
}

func (x *headerIndex) used() bool { return len(x.names) > 0 }

func (x *headerIndex) add(headers []header, rule uint32) {
	if len(headers) == 0 || headers[0].any {
		x.without = append(x.without, rule)
		return
	}
	h := headers[0]
	for i := range headers {
		if len(headers[i].value) > 0 {
			h = headers[i]
			break
		}
	}
	if x.names == nil {
		x.names = make(map[string]*headerLists)
	}
	name := foldName(nil, h.name)
	lists := x.names[string(name)]
	if lists == nil {
		lists = &headerLists{values: make(map[string][]uint32)}
		x.names[string(name)] = lists
		x.lengths |= 1 << (len(name) & 63)
		x.longest = max(x.longest, len(name))
	}
	if len(h.value) == 0 {
		lists.present = append(lists.present, rule)
	} else {
		lists.values[string(h.value)] = append(lists.values[string(h.value)], rule)
	}
}

// lists are those that may have a rule that matches.
func (x *headerIndex) lists(r *HTTPRequest, to [][]uint32) [][]uint32 {
	to = append(to, x.without)
	if len(r.Host) > 0 {
		to = x.under(r, -1, hostName, to)
	}
	for i := range r.Headers {
		to = x.under(r, i, r.Headers[i].Name, to)
	}
	return to
}

// under adds the lists of a header that the request has at i, and not before.
func (x *headerIndex) under(r *HTTPRequest, i int, name []byte, to [][]uint32) [][]uint32 {
	if x.lengths>>(len(name)&63)&1 == 0 && ascii(name) || len(name) > utf8.UTFMax*x.longest {
		return to
	}
	var room [64]byte
	lists := x.names[string(foldName(room[:0], name))]
	if lists == nil || sentBefore(r, i, name) {
		return to
	}
	if len(lists.present) > 0 {
		to = append(to, lists.present)
	}
	if len(lists.values) > 0 {
		var joined [256]byte
		if list := lists.values[string(joinValues(joined[:0], r, name))]; len(list) > 0 {
			to = append(to, list)
		}
	}
	return to
}

// sentBefore reports whether a header before i has the name too.
func sentBefore(r *HTTPRequest, i int, name []byte) bool {
	if i >= 0 && len(r.Host) > 0 && bytes.EqualFold(name, hostName) {
		return true
	}
	for k := 0; k < i; k++ {
		if bytes.EqualFold(r.Headers[k].Name, name) {
			return true
		}
	}
	return false
}

// joinValues is the one value of a header, as header.match sees it.
func joinValues(to []byte, r *HTTPRequest, name []byte) []byte {
	if len(r.Host) > 0 && bytes.EqualFold(name, hostName) {
		return append(to, r.Host...)
	}
	found := false
	for i := range r.Headers {
		if bytes.EqualFold(r.Headers[i].Name, name) {
			if found {
				to = append(to, ',')
			}
			to, found = append(to, r.Headers[i].Value...), true
		}
	}
	return to
}

func ascii(name []byte) bool {
	for _, b := range name {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// foldName writes a name so that those equal to bytes.EqualFold are the same.
func foldName(to, name []byte) []byte {
	for len(name) > 0 {
		r, n := utf8.DecodeRune(name)
		name = name[n:]
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		to = utf8.AppendRune(to, least)
	}
	return to
}
