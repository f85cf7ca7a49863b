package bpf

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// farService makes one whose backend is in another network.
func (o *outer) farService(v6 bool) netip.AddrPort {
	o.Helper()
	backend := netip.AddrPortFrom(pick(v6, world4, world6), backendPort)
	o.serve(v6, nil, backend)
	return backend
}

// A router, the backend and the gate complain about packets to a service whose backend
// is in another network: the client hears of what it sent, from who says so.
func TestServiceErrorsOfOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		for name, f := range map[string]frame{"TCP": o.tcp(v6, 40000, 0, syn), "UDP": o.udp(v6, 40000, 0)} {
			o.renew(nil, nil)
			at := f.at(o.farService(v6))
			r := o.sends(o.a, f.asked())
			o.expect(family+" "+name, r, actionSend, 0, 1)
			left := at.asNode(40000)
			if r = o.leaves(o.a, at, 0); string(r.data) != string(left.bytes()) {
				t.Fatalf("%s %s: leaves as\n%x, want\n%x", family, name, r.data, left.bytes())
			}
			kind := map[bool]uint8{false: 3, true: 2}[v6]
			for by, as := range map[netip.Addr]netip.Addr{pick(v6, router4, router6): pick(v6, router4, router6), at.dst: vip(v6)} {
				e := complaint(left, by, kind, 4)
				e.icmpMTU = 1300
				r = o.enters(e)
				o.expectAll(family+" "+name+": error of "+by.String(), r, actionSend, "0 ingress")
				want := complaint(left, as, kind, 4)
				want.dst = f.src
				want.payload = slices.Clone(f.asked().bytes()[14 : 14+len(want.payload)])
				o.sameError(r.data, want)
			}
			dying := f.asked()
			dying.ttl = 1
			r = o.sends(o.a, dying)
			o.expectAll(family+" "+name+": no hop left", r, actionSend, "0 egress, 196 egress")
			want := frame{
				src: pick(v6, gateway4, gateway6), dst: f.src, proto: map[bool]uint8{false: protoICMP, true: protoICMPv6}[v6],
				payload: dying.bytes()[14:],
			}
			o.sameError(r.data, want)
		}
	}
}

// A datagram in pieces to such a service, and its answer.
func TestServiceFragmentsOfOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		f := o.udp(v6, 40000, 0)
		f.payload = make([]byte, 64)
		at := f.at(o.farService(v6))
		for _, first := range []bool{true, false} {
			o.expect(family+": fragment", o.sends(o.a, f.asked().piece(first)), actionSend, 0, 1)
			r := o.leaves(o.a, at.piece(first), 0)
			if want := at.asNode(40000).piece(first); r.action != actionNext || string(r.data) != string(want.bytes()) {
				t.Errorf("%s: fragment, first %v, leaves as\n%x, want\n%x, counted %q", family, first, r.data, want.bytes(), o.counted())
			}
			o.forget()
		}
		for _, first := range []bool{true, false} {
			r := o.enters(at.asNode(40000).reversed(0).piece(first))
			o.expect(family+": fragment of the answer", r, actionSend, 0, 0)
			want := f.asked().reversed(0).piece(first)
			want.dstMAC, want.srcMAC, want.ttl = o.a.mac, gatewayMAC, want.ttl-1
			if string(r.data) != string(want.bytes()) {
				t.Errorf("%s: a gets fragment, first %v,\n%x, want\n%x", family, first, r.data, want.bytes())
			}
		}
	}
}

// A connection to a service, translated per packet, is reset at both ends: its client
// by the address that it asked.
func TestWireServiceReset(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		for _, serverSpeaks := range []bool{false, true} {
			t.Run(family+map[bool]string{false: ", the client speaks", true: ", the server speaks"}[serverSpeaks], func(t *testing.T) {
				l := w.in(t)
				l.must(l.g.SetSettings(Settings{Reset: true}))
				l.serve(v6, nil, l.b.backend(v6))
				var ln net.Listener
				l.must(within(w.nsB, func() (err error) {
					ln, err = net.Listen("tcp", l.b.backend(v6).String())
					return err
				}))
				defer ln.Close()
				client, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(vip(v6), servicePort), patience)
				l.must(err)
				defer client.Close()
				server, err := ln.Accept()
				l.must(err)
				defer server.Close()
				speak(t, client, server)
				speak(t, server, client)
				l.must(l.g.SyncPolicy(subjectB, everything(), PolicyTable{}))
				l.must(l.g.SetRevision(uint32(time.Now().UnixNano())))
				from := client
				if serverSpeaks {
					from = server
				}
				_, err = from.Write([]byte("too late"))
				l.must(err)
				for name, c := range map[string]net.Conn{"client": client, "server": server} {
					c.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
						t.Errorf("%s: %v, want a reset", name, err)
					}
				}
				l.must(l.g.SyncPolicy(subjectB, PolicyTable{}, everything()))
				l.must(l.g.SetRevision(uint32(time.Now().UnixNano())))
			})
		}
	}
}
