package bpf

import (
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

// arrives establishes a connection of somebody outside to port, which leads to another
// network, and says where it was refused, or "".
func (o *outer) arrives(client, port, backend netip.AddrPort) string {
	o.Helper()
	f := o.client(o.tcp(client.Addr().Is6(), client.Port(), 0, 0), port)
	f.src = client.Addr()
	r := o.enters(f.with(syn))
	if r.action != actionSend {
		return "SYN " + o.counted()
	}
	answer := f.at(backend).asNode(nodePort(f, r.data)).reversed(syn | ack)
	if r = o.enters(answer); r.action != actionSend {
		return "SYN-ACK " + o.counted()
	}
	if r = o.enters(f.with(ack)); r.action != actionSend {
		return "ACK " + o.counted()
	}
	return ""
}

func shareOf(all []Share, of uint16) int64 {
	for _, s := range all {
		if s.Endpoint == of {
			return s.Open
		}
	}
	return 0
}

// Who comes by a port of the node and goes on elsewhere fills no more than its share,
// and workloads go on connecting.
func TestShareOfTransit(t *testing.T) {
	const share = 8
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		o.must(o.g.SetSettings(Settings{Share: share}))
		port, backend := o.opened(v6)
		client := netip.AddrPortFrom(pick(v6, mustAddr("203.0.113.1"), mustAddr("2001:db8:99::1")), 40000)
		refused := 0
		for range 3 * share { // from as many addresses as they like
			client = netip.AddrPortFrom(client.Addr().Next(), client.Port()+1)
			if why := o.arrives(client, port, backend); why != "" {
				refused++
				if why != "SYN 248 ingress" {
					t.Errorf("%s: refused at %s", family, why)
				}
			}
			o.forget()
		}
		if got := shareOf(o.g.Shares(), ShareTransit); got != share || refused != 2*share {
			t.Errorf("%s: %d pass, and %d were refused, want %d and %d", family, got, refused, share, 2*share)
		}
		o.open(o.tcp(v6, 40000, 80, 0))
		if _, err := o.g.Conntrack().Forget(backend.Addr()); err != nil {
			t.Error(err)
		}
		if got := shareOf(o.g.Shares(), ShareTransit); got != 0 {
			t.Errorf("%s: %d are counted, and none is left", family, got)
		}
		if why := o.arrives(client, port, backend); why != "" {
			t.Errorf("%s: with its share back: %s", family, why)
		}
		o.forget()
		if _, err := o.g.Conntrack().Forget(o.a.addr(v6)); err != nil {
			t.Error(err)
		}
		if _, err := o.g.Conntrack().Forget(backend.Addr()); err != nil {
			t.Error(err)
		}
	}
}

// The machine itself has a share as well: nobody outside takes all room by what it
// serves.
func TestShareOfHost(t *testing.T) {
	const share = 5
	o := newOuter(t)
	o.must(o.g.SyncPolicy(subjectHost, nil, everything()))
	o.must(o.g.SetSettings(Settings{Share: share, Host: HostEnforce, HostSubject: subjectHost}))
	for i := range uint16(2 * share) {
		f := o.client(o.tcp(false, 40000+i, 443, syn), netip.AddrPortFrom(node4, 443))
		want := "0"
		if i >= share {
			want = "248 ingress"
		}
		r := o.enters(f)
		if i >= share {
			o.expectAll("one too many", r, actionShot, want)
			continue
		}
		if r.action != actionNext {
			t.Fatalf("connection %d: action %d, counted %q", i, r.action, o.counted())
		}
		o.leaves(workload{}, f.reversed(syn|ack), 0)
		o.enters(f.with(ack))
		o.forget()
	}
	if got := shareOf(o.g.Shares(), ShareAsked); got != share {
		t.Errorf("the host is asked by %d, want %d", got, share)
	}
	o.open(o.tcp(false, 40000, 80, 0))
	// What it opens itself has another.
	for i := range uint16(share + 1) {
		f := o.tcp(false, 50000+i, 443, syn)
		f.src, f.dst = node4, world4
		if r := o.leaves(workload{}, f, 0); (r.action == actionShot) != (i == share) {
			t.Errorf("the host's own, number %d: action %d, counted %q", i, r.action, o.counted())
		}
		o.enters(f.reversed(syn | ack))
		o.leaves(workload{}, f.with(ack), 0)
		o.forget()
	}
	if got := shareOf(o.g.Shares(), ShareHost); got != share {
		t.Errorf("the host opened %d, want %d", got, share)
	}
}

// The last of the room is for those that have little: some that together took all
// the rest keep nobody out.
func TestShareLast(t *testing.T) {
	const room = 4096
	const last, little = room / 16, room / 16 / 128
	o := newOuter(t, func(o *Options) { o.MaxConnections = room })
	o.must(o.g.SetSettings(Settings{Share: room}))
	taken := 0
	for refused := false; !refused; taken++ {
		f := o.tcp(false, uint16(1024+taken), 80, 0)
		if r := o.sends(o.a, f.with(syn)); r.action == actionShot {
			refused = true
			o.expect("the rest is taken", r, actionShot, 248, policy.Egress)
			break
		}
		o.answers(f, syn|ack)
		o.sends(o.a, f.with(ack))
		o.forget()
	}
	if taken != room-last {
		t.Errorf("one workload took %d, want %d", taken, room-last)
	}
	own := func(i int) frame {
		f := o.tcp(false, uint16(1024+i), 22, syn).reversed(syn)
		f.sport, f.dport, f.srcMAC, f.dstMAC = uint16(1024+i), 22, o.b.mac, gatewayMAC
		return f
	}
	for i := range little {
		f := own(i)
		o.delivered("of who has little", o.sends(o.b, f))
		back := f.reversed(syn | ack)
		back.srcMAC, back.dstMAC = o.a.mac, gatewayMAC
		o.sends(o.a, back)
		o.sends(o.b, f.with(ack))
		o.forget()
	}
	o.dropped("of who has enough", o.sends(o.b, own(little)), 248)
	port, backend := o.opened(false)
	for i := range uint16(last / 4) {
		if why := o.arrives(netip.AddrPortFrom(mustAddr("203.0.113.1"), 1024+i), port, backend); why != "" {
			t.Fatalf("what passes, number %d: %s", i, why)
		}
		o.forget()
	}
	o.delivered("established", o.sends(o.a, o.tcp(false, 1024, 80, ack)))
}
