package redirect

import (
	"os"
	"strings"
)

// SourceValidation says which settings keep redirected packets out, and what to write
// in their place; empty: none. With them the kernel looks for the source of such a
// packet by its mark, finds this machine, and drops it.
func SourceValidation() string {
	if sysctl("all/rp_filter") != "1" {
		return ""
	}
	if sysctl("all/src_valid_mark") == "1" {
		return "redirected connections would be dropped: sysctl -w net.ipv4.conf.all.src_valid_mark=0 net.ipv4.conf.all.rp_filter=2"
	}
	return "connections of the host to ports with L7 rules would be dropped: sysctl -w net.ipv4.conf.all.rp_filter=2"
}

func sysctl(name string) string {
	data, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
