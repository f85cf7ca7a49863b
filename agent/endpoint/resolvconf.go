package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// netnsConfig is where ip-netns(8) looks for files that processes of a named network
// namespace are to see in /etc.
const netnsConfig = "/etc/netns"

// resolvConfMark starts the files that are ours, and may be removed.
const resolvConfMark = "# Written by headgate for this endpoint, and removed with it.\n"

// writeResolvConf tells processes that ip-netns(8) starts in the endpoint's namespace
// to ask the gateway for names, and those of the endpoint's own namespace by their
// first part.
func writeResolvConf(e *Endpoint, gateways []netip.Addr, domain string) error {
	if _, err := strconv.Atoi(e.Netns); err == nil || strings.Contains(e.Netns, "/") {
		return fmt.Errorf("%w: only a network namespace with a name has a resolv.conf of its own, %s/NAME/resolv.conf: name it, or write the workload's yourself", ErrInvalid, netnsConfig)
	}
	if domain == "" {
		return fmt.Errorf("%w: no names are given out that a resolv.conf could ask for: start the agent with --dns on", ErrInvalid)
	}
	var text strings.Builder
	text.WriteString(resolvConfMark)
	for _, gw := range gateways {
		if hasFamily(e.IPs, gw) {
			fmt.Fprintf(&text, "nameserver %s\n", gw)
		}
	}
	fmt.Fprintf(&text, "search %s.svc.%s svc.%s %s\noptions ndots:5\n", e.Namespace, domain, domain, domain)
	path := filepath.Join(netnsConfig, e.Netns, "resolv.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %s is there already, and not headgate's: remove it, or leave --resolv-conf out", ErrInvalid, path)
	}
	if err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	e.ResolvConf = path
	_, err = f.WriteString(text.String())
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	return nil
}

// removeResolvConf takes away what writeResolvConf wrote, unless somebody else wrote
// there since. The directory goes if nothing else is in it.
func removeResolvConf(e *Endpoint) error {
	if e.ResolvConf == "" {
		return nil
	}
	text, err := os.ReadFile(e.ResolvConf)
	if os.IsNotExist(err) {
		return nil
	}
	if err == nil && bytes.HasPrefix(text, []byte(resolvConfMark)) {
		err = os.Remove(e.ResolvConf)
	}
	if err != nil {
		return fmt.Errorf("remove resolv.conf: %w", err)
	}
	for _, dir := range []string{filepath.Dir(e.ResolvConf), netnsConfig} {
		if os.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// Forget removes what an endpoint has besides its interface: for a cleanup, in which
// interfaces go by themselves.
func Forget(e *Endpoint) error { return removeResolvConf(e) }
