package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// checkForwarding says that nothing depends on it: people look for it first.
func checkForwarding() finding {
	f := finding{Name: "forwarding between networks", OK: true}
	var off []string
	for name, path := range map[string]string{"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net.ipv6.conf.all.forwarding": "net/ipv6/conf/all/forwarding"} {
		if sysctl(path) == "0" {
			off = append(off, name)
		}
	}
	if len(off) > 0 {
		f.Detail = "off, and not needed: the datapath carries endpoints' packets itself"
	}
	return f
}

// checkJIT: without, each packet costs several times as much.
func checkJIT() finding {
	f := finding{Name: "BPF programs are compiled", OK: sysctl("net/core/bpf_jit_enable") != "0"}
	if !f.OK {
		f.Detail = "the kernel interprets BPF, slowly: sysctl -w net.core.bpf_jit_enable=1"
	}
	return f
}

// checkSockDiag: the proxy ends a TIME_WAIT of its own when a client uses its port
// again, which takes CONFIG_INET_DIAG_DESTROY. Ending a socket that nobody has says
// whether the kernel could.
func checkSockDiag() finding {
	f := finding{Name: "sockets can be ended (CONFIG_INET_DIAG_DESTROY)"}
	err := sockDestroyNobody()
	if err == nil || errors.Is(err, unix.ENOENT) {
		f.OK = true
		return f
	}
	f.Detail = fmt.Sprintf("without it a client's port is not usable for a minute after a proxied connection, and with --backend envoy no tunnel or stream ends that policy forbids when it lasts already; load inet_diag and tcp_diag, or build the kernel with CONFIG_INET_DIAG_DESTROY: %v", err)
	return f
}

// checkPorts: the Observer API has a port that hubble's clients look for.
func checkPorts() finding {
	f := finding{Name: "port 4245 for the Observer API", OK: true}
	l, err := net.Listen("tcp", "localhost:4245")
	if err != nil {
		f.Detail = "taken, perhaps by an agent that runs; the unix socket works all the same, or name another with --observer-listen"
		return f
	}
	l.Close()
	return f
}

func sockDestroyNobody() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	const (
		sockDestroy = 21 // SOCK_DESTROY (linux/sock_diag.h)
		header      = unix.SizeofNlMsghdr
		request     = 56 // struct inet_diag_req_v2
	)
	msg := make([]byte, header+request)
	putNative32(msg, uint32(len(msg)))
	msg[4] = sockDestroy
	msg[6] = unix.NLM_F_REQUEST | unix.NLM_F_ACK
	body := msg[header:]
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	putNative32(body[4:], 1<<1) // established
	body[8], body[9] = 0, 1     // source port 1, of no address
	for i := 48; i < 56; i++ {  // no cookie
		body[i] = 0xff
	}
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < header+4 {
		return os.NewSyscallError("recvfrom", err)
	}
	if code := int32(native32(answer[header:])); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

func putNative32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func native32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
