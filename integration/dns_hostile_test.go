package integration

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// hostile has a server send all that a client must not get, before and behind what it
// must. It gets that alone.
func (r *resolving) hostile(t *testing.T) {
	r.forger = r.workload(t, "forger", "app=dns")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		socket := r.forger.listenUDP(t, 53)
		defer socket.Close()
		go forge(socket)
		c := r.client.mustTalk(t, netip.AddrPortFrom(r.forger.addr(v), 53))
		for range 20 {
			q := new(dns.Msg).SetQuestion("wWw.example.org.", dns.TypeA)
			a, err := converse(c, q, patience)
			if err != nil || len(a.Answer) != 1 || a.Answer[0].(*dns.A).A.String() != "192.0.2.80" {
				t.Fatalf("%v, %v", a, err)
			}
		}
		noDatagram(t, c, "everything else")
		// What the server sends without having been asked goes nowhere either.
		q := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA)
		if _, err := socket.WriteTo(forged(q, "www.example.org.", "192.0.2.66"), net.UDPAddrFromAddrPort(endOf(c.LocalAddr()))); err != nil {
			t.Fatal(err)
		}
		noDatagram(t, c, "an answer to nothing")
		malformedQuestions(t, c)
	})
}

// malformedQuestions are refused, and the server does not see them.
func malformedQuestions(t *testing.T, c net.Conn) {
	t.Helper()
	good, err := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	two := bytes.Clone(good)
	two[5] = 2
	for name, b := range map[string][]byte{
		"two questions": append(two, good[12:]...), "bytes behind": append(bytes.Clone(good), 0), "cut off": good[:len(good)-1],
		"a pointer to itself": append(bytes.Clone(good[:12]), 0xc0, 12, 0, 1, 0, 1),
		"an update":           append([]byte{good[0], good[1], 0x28, 0}, good[4:]...),
		"far too long":        append(bytes.Clone(good), make([]byte, 1300)...),
	} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		answer := make([]byte, 4096)
		n, err := c.Read(answer)
		if err != nil || n != 12 || answer[3]&15 != dns.RcodeRefused || answer[0] != b[0] || answer[1] != b[1] {
			t.Errorf("%s: %x, %v", name, answer[:n], err)
		}
	}
}

// forged is an answer to q about any name.
func forged(q *dns.Msg, name, addr string) []byte {
	a := new(dns.Msg).SetReply(q)
	rr, err := dns.NewRR(name + " 60 IN A " + addr)
	if err != nil {
		panic(err)
	}
	a.Answer = []dns.RR{rr}
	b, err := a.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// forge answers each question many times, once rightly.
func forge(socket *net.UDPConn) {
	const evil = "192.0.2.66"
	b := make([]byte, 4096)
	for {
		n, client, err := socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		q := new(dns.Msg)
		if q.Unpack(b[:n]) != nil || len(q.Question) != 1 {
			continue
		}
		name := q.Question[0].Name
		right := forged(q, name, "192.0.2.80")
		send := func(b []byte) { _, _ = socket.WriteToUDPAddrPort(b, client) }
		other := q.Copy()
		other.Id++
		send(forged(other, name, evil)) // another id
		other = q.Copy()
		other.Question[0].Name = "www.example.ORG."
		send(forged(other, name, evil)) // letters of another case
		other.Question[0].Name = "other.example.org."
		send(forged(other, "other.example.org.", evil)) // another name
		other = q.Copy()
		other.Question[0].Qtype = dns.TypeAAAA
		send(forged(other, name, evil)) // another type
		send(append(bytes.Clone(right), 0))
		send(right[:len(right)-1])
		send(b[:n]) // the question itself
		loop := bytes.Clone(right[:n])
		loop[7] = 1
		send(append(loop, 0xc0, byte(n), 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 66))
		circle := bytes.Clone(right[:n])
		circle[7] = 1
		send(append(circle, 0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12)) // an alias of itself
		send(make([]byte, 60000))
		send(right)
		send(forged(q, name, evil)) // too late
		send(right)
	}
}
