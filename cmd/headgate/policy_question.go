package main

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

// question reads all but the ends, for which the world must be known.
func (f *explainFlags) question(c *cobra.Command) (*verdict.Question, error) {
	if f.from == "" || f.to == "" || f.port == "" {
		return nil, usagef("%q needs --from, --to and --port", c.CommandPath())
	}
	if !slices.Contains([]string{"", "ingress", "egress"}, f.direction) {
		return nil, usagef("%q is no direction: write ingress or egress", f.direction)
	}
	q := &verdict.Question{Direction: f.direction, Protocol: "TCP"}
	port, proto, found := strings.Cut(f.port, "/")
	if found {
		q.Protocol = strings.ToUpper(proto)
	}
	if strings.HasPrefix(q.Protocol, "ICMP") {
		q.ICMPType = port
	} else {
		q.Port = port
	}
	if c.Flags().Changed("sni") {
		q.SNI = &f.sni
	}
	l7, err := f.request()
	q.L7 = l7
	return q, err
}

func (f *explainFlags) request() (*verdict.L7, error) {
	var headers [][]string
	for _, h := range f.headers {
		name, value, found := strings.Cut(h, ":")
		if !found || name == "" {
			return nil, usagef("%q is no header: write 'name: value'", h)
		}
		headers = append(headers, []string{name, strings.TrimSpace(value)})
	}
	given := 0
	l7 := &verdict.L7{}
	if f.http != "" {
		method, path, _ := strings.Cut(f.http, " ")
		l7.HTTP = &verdict.HTTP{Method: method, Path: strings.TrimSpace(path), Host: f.host, Headers: headers}
		given++
	}
	if f.grpc != "" {
		service, method, found := strings.Cut(strings.TrimPrefix(f.grpc, "/"), "/")
		if !found {
			return nil, usagef("%q is no call: write package.Service/Method", f.grpc)
		}
		l7.GRPC = &verdict.GRPC{Service: service, Method: method, Host: f.host, Headers: headers}
		given++
	}
	if f.kafka != "" {
		kafka, err := readKafka(f.kafka)
		if err != nil {
			return nil, err
		}
		l7.Kafka = kafka
		given++
	}
	if f.dns != "" {
		l7.DNS = &verdict.DNS{Query: f.dns}
		given++
	}
	switch {
	case given > 1:
		return nil, usagef("a question is about one request: give one of --http, --grpc, --kafka and --dns")
	case (f.host != "" || len(headers) > 0) && l7.HTTP == nil && l7.GRPC == nil:
		return nil, usagef("--host and --header belong to a request: give --http or --grpc")
	case given == 0:
		return nil, nil
	}
	return l7, nil
}

func readKafka(text string) (*verdict.Kafka, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, usagef("%q is no Kafka request: write 'produce topic=t'", text)
	}
	k := &verdict.Kafka{APIKey: words[0]}
	if _, err := strconv.ParseInt(words[0], 10, 16); err != nil {
		if _, known := policy.KafkaAPI(words[0]); !known {
			return nil, usagef("%q is no API of Kafka: write its name, such as produce, fetch or createtopics, or its number", words[0])
		}
	}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		to := map[string]*string{
			"topic": &k.Topic, "client": &k.ClientID, "group": &k.Group, "txn": &k.TransactionalID, "version": &k.APIVersion,
		}[name]
		if to == nil {
			return nil, usagef("%q is no part of a Kafka request: write topic=, client=, group=, txn= or version=", w)
		}
		*to = value
	}
	return k, nil
}

// readEnd reads who is at one end. An endpoint that is described by its labels
// comes into the world, named after them.
func readEnd(world *verdict.World, text string) (verdict.End, error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return verdict.End{IP: text}, nil
	}
	if strings.Contains(text, "=") {
		return hypothetical(world, text)
	}
	switch {
	case slices.Contains(policy.Entities(), policy.Entity(text)):
		return verdict.End{Entity: text}, nil
	case slices.ContainsFunc(world.Nodes, func(n verdict.Node) bool { return n.Name == text }):
		return verdict.End{Node: text}, nil
	}
	namespace, endpoint, err := splitName(text)
	return verdict.End{Endpoint: namespace + "/" + endpoint}, err
}

func hypothetical(world *verdict.World, text string) (verdict.End, error) {
	labels, err := parseLabels(strings.Split(text, ","))
	if err != nil {
		return verdict.End{}, err
	}
	e := verdict.Endpoint{Name: text, Labels: map[string]string{}, NamespaceLabels: map[string]string{}}
	for key, value := range labels {
		key = strings.TrimPrefix(key, policy.SourceK8s+":")
		place(&e, key, value)
	}
	if n := len(world.Endpoints); n > 0 && world.Endpoints[n-1].Name == text { // the same labels are no reason to be the same
		e.Name = "another " + text
	}
	world.Endpoints = append(world.Endpoints, e)
	return verdict.End{Endpoint: e.FullName()}, nil
}
