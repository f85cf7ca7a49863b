package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// routed is a node that forwards between two workloads as Linux does, without BPF.
type routed struct {
	node, client, server *netns
	address              netip.Addr // of the server
	gateway              netip.Addr // of the node, as the client sees it
}

func (w *world) newRouted() (*routed, error) {
	r := &routed{address: netip.MustParseAddr("10.9.2.2"), gateway: netip.MustParseAddr("10.9.1.1")}
	for _, n := range []**netns{&r.node, &r.client, &r.server} {
		made, err := w.netns()
		if err != nil {
			return nil, err
		}
		*n = made
	}
	for _, name := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"} {
		if err := r.node.sysctl(name, "0"); err != nil {
			return nil, err
		}
	}
	if err := r.node.connect("client", "10.9.1.1/24", r.client, "10.9.1.2/24"); err != nil {
		return nil, err
	}
	if err := r.node.connect("server", "10.9.2.1/24", r.server, "10.9.2.2/24"); err != nil {
		return nil, err
	}
	return r, r.node.sysctl("ipv4/ip_forward", "1")
}

// shell runs lines of a script in the node's namespace.
func (w *world) shell(n *netns, script string) error {
	_, err := w.run(n, "setup", script, "sh", "-e")
	return err
}

// write renders a configuration file.
func (w *world) write(name, text string, values ...string) (string, error) {
	path := w.dir + "/" + name
	if err := os.WriteFile(path, []byte(strings.NewReplacer(values...).Replace(text)), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

// redirect sends what the client has for the server's port to a transparent listener
// on the node, and what the server answers to the socket that has its connection.
const redirect = `
iptables -t mangle -N DIVERT
iptables -t mangle -A DIVERT -j MARK --set-mark 1
iptables -t mangle -A DIVERT -j ACCEPT
iptables -t mangle -A PREROUTING -p tcp -m socket --transparent -j DIVERT
iptables -t mangle -A PREROUTING -i client -p tcp -m multiport --dports 80,82 -j TPROXY --on-port 15001 --tproxy-mark 1
ip rule add fwmark 1 lookup 100
ip route add local default dev lo table 100
`

// envoy puts stock Envoy, transparent, before the server's ports 80 and 82, the
// second for HTTP/2.
func (w *world) startEnvoy(r *routed) error {
	config, err := yaml.YAMLToJSON([]byte(envoyConfig)) // Envoy knows no merge keys
	if err != nil {
		return fmt.Errorf("read Envoy's configuration: %w", err)
	}
	path, err := w.write("envoy.json", string(config), "DIR", w.dir)
	if err != nil {
		return err
	}
	if err := w.shell(r.node, redirect); err != nil {
		return err
	}
	return w.start(r.node, "envoy", true, "", w.envoy, "--config-path", path, "--concurrency", strconv.Itoa(w.workers()),
		"--use-dynamic-base-id", "--log-level", "warning")
}

// nginxPort is where nginx, which is not transparent, listens on the node.
const nginxPort = 8080

func (w *world) startNginx(r *routed) error {
	path, err := w.write("nginx.conf", nginxConfig, "DIR", w.dir, "SERVER", netip.AddrPortFrom(r.address, 81).String(),
		"WORKERS", strconv.Itoa(w.workers()), "PORT", strconv.Itoa(nginxPort))
	if err != nil {
		return err
	}
	return w.start(r.node, "nginx", true, "", "nginx", "-c", path, "-p", w.dir, "-e", w.dir+"/nginx.err")
}
