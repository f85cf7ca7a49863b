package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/redirect"
)

// finding is one thing that was looked at.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

func newCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can run the agent",
		Long: `Look at what the agent needs: the kernel, its settings and the rights of who asks.
Nothing is changed. Exit 1 if something is missing; what to do stands beside it.`,
		Example: `  headgate check
  headgate check -o json`,
		Args: wantArgs(),
		RunE: runCheck,
	}
	addOutput(c)
	return c
}

func runCheck(c *cobra.Command, _ []string) error {
	findings := checkMachine()
	err := show(c, findings, func(w io.Writer) error {
		l := newLines()
		for _, f := range findings {
			word := "ok"
			if !f.OK {
				word = "MISSING"
			}
			l.line(f.Name, strings.TrimSpace(word+"  "+f.Detail))
		}
		return l.write(w)
	})
	if err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			return errors.New("this machine cannot run the agent as it is; see above")
		}
	}
	return nil
}

func checkMachine() []finding {
	out := []finding{checkRoot(), checkKernel()}
	for _, n := range append(bpf.Probe(), bpf.ProbeFeatures()...) {
		f := finding{Name: n.Name, OK: n.Err == nil}
		if n.Err != nil {
			f.Detail = fmt.Sprintf("%s: %s", n.Hint, oneLine(n.Err.Error()))
		}
		out = append(out, f)
	}
	return append(out, checkSourceValidation(), checkIPv6(), checkForwarding(), checkJIT(), checkCgroup(), checkSockDiag(), checkPorts())
}

func checkRoot() finding {
	f := finding{Name: "root", OK: os.Geteuid() == 0}
	if !f.OK {
		f.Detail = "run as root"
	}
	return f
}

func checkKernel() finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{Name: "kernel 6.6 or newer", Detail: err.Error()}
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	_, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return finding{Name: "kernel 6.6 or newer", OK: err == nil && (major > 6 || major == 6 && minor >= 6), Detail: release}
}

func checkSourceValidation() finding {
	advice := redirect.SourceValidation()
	return finding{Name: "reverse path filter lets redirected packets in", OK: advice == "", Detail: advice}
}

func checkIPv6() finding {
	f := finding{Name: "IPv6", OK: sysctl("net/ipv6/conf/all/disable_ipv6") == "0"}
	if !f.OK {
		f.Detail = "IPv6 is off: sysctl -w net.ipv6.conf.all.disable_ipv6=0, or give the agent IPv4 endpoint CIDRs only"
	}
	return f
}

// checkCgroup: without control groups services are served all the same, but to the
// host's own processes.
func checkCgroup() finding {
	f := finding{Name: "services where sockets connect", OK: true}
	root, err := bpf.CgroupRoot()
	if f.Detail = root; err != nil {
		f.Detail = fmt.Sprintf("%v: services are translated per packet only, and not for this machine's own processes; mount -t cgroup2 none /sys/fs/cgroup", err)
	}
	return f
}

func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
