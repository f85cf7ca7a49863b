package naive

import (
	"net/netip"
	"strconv"
)

// Party is one side of a connection: a workload, something reserved, or an
// address outside the cluster.
type Party struct {
	Name      string
	Namespace string            // of a workload
	Labels    map[string]string // of a workload itself
	Ports     map[string]Port   // what it means by names
	Reserved  string            // "host", "remote-node" ...
	Address   string            // outside
	Prefix    string            // of ranges, the smallest that holds Address; empty: none
}

// ranges are the address ranges that policies name.
var ranges = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.7/32", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8:1::/48"}

// NamespaceLabels are those of the namespaces there are.
func NamespaceLabels() map[string]map[string]string {
	return map[string]map[string]string{
		"x": {"env": "prod", "kubernetes.io/metadata.name": "x"},
		"y": {"env": "dev", "kubernetes.io/metadata.name": "y"},
	}
}

// Parties are all there are.
func Parties() []Party {
	tcp := func(port string) Port { return Port{Port: port, Protocol: "TCP"} }
	parties := []Party{
		{Namespace: "x", Labels: map[string]string{"app": "a", "tier": "front"}, Ports: map[string]Port{"web": tcp("80"), "db": tcp("443")}},
		{Namespace: "x", Labels: map[string]string{"app": "b"}, Ports: map[string]Port{"web": tcp("8080")}},
		{Namespace: "x", Labels: map[string]string{"app": "c", "tier": "back"}},
		{Namespace: "y", Labels: map[string]string{"app": "a"}, Ports: map[string]Port{"web": {Port: "53", Protocol: "UDP"}}},
		{Namespace: "y", Labels: map[string]string{"app": "b", "tier": "front"}},
	}
	for i := range parties {
		parties[i].Name = parties[i].Namespace + "/" + parties[i].Labels["app"]
	}
	for _, name := range []string{"host", "remote-node", "kube-apiserver", "health", "init", "unmanaged", "ingress"} {
		parties = append(parties, Party{Name: name, Reserved: name})
	}
	for address, prefix := range map[string]string{
		"10.9.9.9": "10.0.0.0/8", "10.1.9.9": "10.1.0.0/16", "10.1.1.9": "10.1.1.0/24", "10.1.1.7": "10.1.1.7/32", "192.0.2.9": "192.0.2.0/24",
		"8.8.8.8": "", "2001:db8::9": "2001:db8::/32", "2001:db8:1::9": "2001:db8:1::/48", "2606::1": "",
	} {
		parties = append(parties, Party{Name: address, Address: address, Prefix: prefix})
	}
	return parties
}

// Connection is what is judged: of one workload, in one direction.
type Connection struct {
	Subject, Peer *Party
	Egress        bool
	Protocol      string // "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", or "GRE", which no rule can name
	Port          int    // or type
	Request       Request
}

// Request is the HTTP request on a TCP connection, or the question on a UDP one.
type Request struct {
	Method, Path, Host string
	Token              string // value of the header X-Token, if any
	Name               string // of the question
}

// Connection makes one at random.
func (r *Random) Connection(parties []Party) Connection {
	workload := func() *Party { return &parties[r.IntN(5)] }
	c := Connection{Subject: workload(), Peer: &parties[r.IntN(len(parties))], Egress: r.oneIn(2)}
	if r.oneIn(2) {
		c.Peer = workload()
	}
	c.Protocol = pick(r, "TCP", "TCP", "TCP", "TCP", "UDP", "UDP", "SCTP", "ICMP", "ICMPv6", "GRE")
	switch c.Protocol {
	case "ICMP", "ICMPv6":
		c.Port = pick(r, 0, 3, 8, 128)
	case "TCP", "UDP", "SCTP":
		c.Port = pick(r, 80, 80, 80, 8080, 443, 53, 81, 85, 1053, 9000, 9001, 1, 65535)
	}
	c.Request = Request{
		Method: pick(r, "GET", "POST", "PUT", "GETX"), Path: pick(r, "/a", "/a/", "/a/b", "/b", "/b?x=1", "/", "/a?x"),
		Host: pick(r, "web.example.com", "web.example.com:80", "example.com"), Token: pick(r, "", "1", "2"),
		Name: pick(r, "www.example.com", "example.org", "myexample.org", "a.b.example.com", "www.a.com", "example.com"),
	}
	return c
}

func number(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// contains reports whether one range holds another.
func contains(outer, inner string) bool {
	o, i := netip.MustParsePrefix(outer), netip.MustParsePrefix(inner)
	return o.Bits() <= i.Bits() && o.Contains(i.Addr())
}
