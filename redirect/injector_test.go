package redirect

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// received is a datagram as a Receiver hands it out.
func received(data string) *Datagram {
	memory := new(struct {
		before [headroom]byte
		data   [room]byte
	})
	n := copy(memory.data[:], data)
	return &Datagram{Data: memory.data[:n], before: &memory.before}
}

// What goes to a workload of the node is one whole frame, in whichever memory its data is; all
// else, and what the device does not take, goes by the other socket.
func TestInjector(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	for _, c := range []struct {
		name     string
		from, to netip.AddrPort
		kind     uint16
		ip       int
	}{
		{"IPv4", netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("10.0.0.1:40000"), unix.ETH_P_IP, 20},
		{"IPv6", netip.MustParseAddrPort("[2001:db8::53]:53"), netip.MustParseAddrPort("[fd00::1]:40000"), unix.ETH_P_IPV6, 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lost atomic.Uint64
			asked, here := 0, true
			s := NewSender([2]int{-1, -1}, &lost)
			s.Inject(pair[0], func(a netip.Addr) bool {
				asked++
				return here && a == c.to.Addr()
			})
			now := time.Now()
			s.Forget(now)
			frame := func() []byte {
				t.Helper()
				b := make([]byte, 2*room)
				n, err := unix.Read(pair[1], b)
				if err != nil {
					t.Fatal("the device got nothing:", err)
				}
				return b[:n]
			}
			s.Queue(c.from, c.to, []byte("an odd answer"))
			one := frame()
			s.Forward(c.from, c.to, received("an odd answer"))
			if two := frame(); !bytes.Equal(one, two) {
				t.Errorf("in one piece it is\n%x, in two\n%x", two, one)
			}
			s.Forward(c.from, c.to, &Datagram{Data: []byte("an odd answer")}) // of another proxy
			if three := frame(); !bytes.Equal(one, three) {
				t.Errorf("from other memory it is\n%x, want\n%x", three, one)
			}
			if asked != 1 {
				t.Errorf("asked %d times where one address is", asked)
			}
			if kind := binary.BigEndian.Uint16(one[12:]); kind != c.kind || len(one) != 14+c.ip+8+13 {
				t.Errorf("a frame of type %x and %d bytes", kind, len(one))
			}
			if c.ip == 20 && sum(one[14:34], 0)%0xffff != 0 {
				t.Error("the header's checksum is wrong")
			}
			if udp := one[14+c.ip:]; binary.BigEndian.Uint16(udp) != 53 || binary.BigEndian.Uint16(udp[2:]) != 40000 || string(udp[8:]) != "an odd answer" {
				t.Errorf("it says %x", udp)
			}

			s.Queue(c.to, c.from, []byte("to elsewhere"))
			s.Flush()
			if lost.Load() != 1 {
				t.Error("what is for elsewhere did not go by the socket")
			}
			here = false
			s.Forget(now.Add(hereLasts + 1))
			s.Forward(c.from, c.to, received("it has gone"))
			s.Flush()
			if lost.Load() != 2 {
				t.Error("who has gone is still taken to be here")
			}
			here = true
			s.Inject(-1, s.injector.here)
			s.Forward(c.from, c.to, received("nobody takes it"))
			s.Flush()
			if lost.Load() != 3 {
				t.Error("what the device did not take is gone")
			}
			if n, err := unix.Read(pair[1], make([]byte, 1)); err != unix.EAGAIN {
				t.Errorf("the device got more: %d, %v", n, err)
			}
		})
	}
}
