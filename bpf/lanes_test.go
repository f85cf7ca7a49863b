package bpf

import (
	"testing"

	"github.com/headgate/headgate/policy"
)

// One workload that opens as much as it can to one server, from whatever ports, leaves
// others ports towards it; and towards other servers all.
func TestPortsForOthers(t *testing.T) {
	const first, count = 20000, 512
	o := newOuter(t, func(op *Options) { op.Masquerade = Masquerade{On: true, First: first, Last: first + count - 1} })
	for family, v6 := range families {
		for name, f := range map[string]frame{"TCP": o.world(o.tcp(v6, 0, 443, syn)), "UDP": o.world(o.udp(v6, 0, 53))} {
			o.renew(nil, nil)
			got := map[uint16]bool{}
			refused := 0
			for round := range uint16(3) { // ports of the range, and its neighbours
				for i := range uint16(count) {
					f.sport = first + round*count + i
					o.sends(o.a, f)
					r := o.leaves(o.a, f, 0)
					if r.action == actionShot {
						refused++
						continue
					}
					if port := nodePort(f, r.data); port >= first && port < first+count {
						got[port] = true
					}
				}
			}
			o.forget()
			const most = count/2 + 2*count/32
			if len(got) > most || len(got) < most-count/32 {
				t.Errorf("%s %s: it has %d of %d ports, want %d at most", family, name, len(got), count, most)
			}
			for i := range uint16(count/32) / 2 { // from ports that a has by now
				f := f.by(o.b)
				f.sport = first + 2*i
				o.expect(family+" "+name+": another's", o.sends(o.b, f), actionSend, 0, policy.Egress)
				if r := o.leaves(o.b, f, 0); r.action != actionNext {
					t.Errorf("%s %s: another workload, number %d: action %d, counted %q", family, name, i, r.action, o.counted())
				}
				o.forget()
			}
			elsewhere := f
			elsewhere.dst, elsewhere.sport = f.dst.Next(), first
			if left := o.sent(o.a, elsewhere); left.sport != first {
				t.Errorf("%s %s: towards another server it has %d", family, name, left.sport)
			}
		}
	}
}
