package verdict

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"github.com/headgate/headgate/policy"
)

// errRefused is a request that no proxy passes on, whatever the rules say.
var errRefused = errors.New("is refused with 400 before rules are asked")

// request makes the request that rules judge.
func (l *L7) request(normal NormalPath) (policy.Request, error) {
	given := 0
	for _, has := range []bool{l.HTTP != nil, l.GRPC != nil, l.Kafka != nil, l.DNS != nil} {
		if has {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, fmt.Errorf("l7 has %d requests; write one of http, grpc, kafka and dns", given)
	case l.HTTP != nil:
		return l.HTTP.request(normal)
	case l.GRPC != nil:
		headers, err := readHeaders(l.GRPC.Headers)
		return &policy.GRPCRequest{
			Service: []byte(l.GRPC.Service), Method: []byte(l.GRPC.Method), Host: []byte(l.GRPC.Host), Headers: headers,
		}, err
	case l.Kafka != nil:
		return l.Kafka.request()
	}
	typ, err := policy.ParseDNSType(cmp.Or(l.DNS.Type, "A"))
	return &policy.DNSRequest{Name: l.DNS.Query, Type: typ}, err
}

func readHeaders(list [][]string) ([]policy.HTTPHeader, error) {
	var headers []policy.HTTPHeader
	for _, h := range list {
		if len(h) != 2 {
			return nil, fmt.Errorf("%q is no header; write [name, value]", h)
		}
		headers = append(headers, policy.HTTPHeader{Name: []byte(h[0]), Value: bytes.TrimSpace([]byte(h[1]))})
	}
	return headers, nil
}

// request puts the path in the form in which the proxies judge and forward it.
// Only a tunnel has no path, and only a request about the whole server has "*".
func (h *HTTP) request(normal NormalPath) (policy.Request, error) {
	headers, err := readHeaders(h.Headers)
	if err != nil {
		return nil, err
	}
	method := h.Method
	if method == "" {
		method = "GET"
	}
	r := &policy.HTTPRequest{Method: []byte(method), Path: []byte(h.Path), Host: []byte(h.Host), Headers: headers}
	switch {
	case method == "CONNECT" || method == "OPTIONS" && h.Path == "*":
		return r, nil
	case h.Path == "":
		r.Path = []byte("/")
		return r, nil
	}
	path, query := r.Path, []byte(nil)
	if n := bytes.IndexByte(path, '?'); n >= 0 {
		path, query = path[:n], path[n:]
	}
	form, err := normal(nil, path)
	if err != nil {
		return nil, fmt.Errorf("path %q %w: %w", h.Path, errRefused, err)
	}
	r.Path = append(form, query...)
	return r, nil
}

// request reads a request. An API that has no known name or number is one that
// no rule allows.
func (k *Kafka) request() (policy.Request, error) {
	const unknown = -1
	r := &policy.KafkaRequest{ClientID: k.ClientID, Topic: k.Topic, Group: k.Group, TransactionalID: k.TransactionalID}
	key, ok := policy.KafkaAPI(k.APIKey)
	if !ok {
		key = unknown
		if n, err := strconv.ParseInt(k.APIKey, 10, 16); err == nil {
			key = int16(n)
		}
	}
	r.APIKey = key
	if k.APIVersion == "" {
		return r, nil
	}
	n, err := strconv.ParseInt(k.APIVersion, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is no version of an API", k.APIVersion)
	}
	r.APIVersion = int16(n)
	return r, nil
}
