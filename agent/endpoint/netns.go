package endpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
)

// OpenNetns opens a network namespace by the name that ip-netns(8) gave it, by the
// path of a file that is bound to it, or by the id of a process in it.
func OpenNetns(spec string) (netns.NsHandle, error) {
	path := spec
	if _, err := strconv.Atoi(spec); err == nil {
		path = filepath.Join("/proc", spec, "ns/net")
	} else if !strings.Contains(spec, "/") {
		path = filepath.Join("/run/netns", spec)
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		if os.IsNotExist(err) {
			return netns.None(), fmt.Errorf("network namespace %q does not exist: create it with 'ip netns add %s', or give a path or a process id", spec, spec)
		}
		return netns.None(), fmt.Errorf("open network namespace %q: %w", spec, err)
	}
	own, err := netns.Get()
	if err != nil {
		h.Close()
		return netns.None(), fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if own.Equal(h) {
		h.Close()
		return netns.None(), fmt.Errorf("network namespace %q is the agent's own: an endpoint needs one to itself", spec)
	}
	return h, nil
}
