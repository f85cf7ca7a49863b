package verdict

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/headgate/headgate/policy"
)

// party finds who an end is. An end that is not an endpoint or a node has an
// identity, and no policy of its own.
func (j *Judge) party(e End) (*party, error) {
	switch {
	case e.Endpoint != "":
		name := e.Endpoint
		if !strings.Contains(name, "/") {
			name = policy.DefaultNamespace + "/" + name
		}
		if p := j.workloads[name]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("there is no endpoint %s", name)
	case e.Node != "":
		if p := j.nodes[e.Node]; p != nil {
			return p, nil
		}
		return nil, fmt.Errorf("there is no node %s", e.Node)
	case e.Entity != "":
		return j.entity(e.Entity)
	case e.IP != "":
		a, err := address(e.IP)
		if err != nil {
			return nil, err
		}
		return j.outside(a), nil
	}
	return nil, fmt.Errorf("an end is missing; write endpoint, ip, entity or node")
}

// outside finds whose an address is: an endpoint's, a node's, one with DNS names
// or in a prefix that rules name, or else any other of the world.
func (j *Judge) outside(a netip.Addr) *party {
	if p := j.byAddress[a]; p != nil {
		return p
	}
	name := a.String()
	for _, info := range j.prefixes {
		if info.Prefix.Contains(a) {
			return &party{name: name, id: info.ID}
		}
	}
	if a.Is4() {
		return &party{name: name, id: policy.IdentityWorldIPv4}
	}
	return &party{name: name, id: policy.IdentityWorldIPv6}
}

// entity finds a reserved identity. Those of endpoints and nodes have policy,
// which selects them by their reserved labels. Of the world one address stands
// for all that no rule names.
func (j *Judge) entity(name string) (*party, error) {
	switch policy.Entity(name) {
	case policy.EntityHost:
		return j.host, nil
	case policy.EntityRemoteNode:
		return j.once(name, policy.IdentityRemoteNode, true), nil
	case policy.EntityHealth:
		return j.once(name, policy.IdentityHealth, false), nil
	case policy.EntityInit:
		return j.once(name, policy.IdentityInit, false), nil
	case policy.EntityIngress:
		return j.once(name, policy.IdentityIngress, false), nil
	case policy.EntityKubeAPIServer:
		return &party{name: name, id: policy.IdentityKubeAPIServer}, nil
	case policy.EntityUnmanaged:
		return &party{name: name, id: policy.IdentityUnmanaged}, nil
	case policy.EntityWorld, policy.EntityWorldIPv4:
		return &party{name: name, id: policy.IdentityWorldIPv4}, nil
	case policy.EntityWorldIPv6:
		return &party{name: name, id: policy.IdentityWorldIPv6}, nil
	}
	return nil, fmt.Errorf("%q is no entity that can be one end; write host, remote-node, world, world-ipv4, world-ipv6, kube-apiserver, health, init, ingress or unmanaged", name)
}

// once makes a party the first time, so that its table is made once too.
func (j *Judge) once(name string, id policy.Identity, node bool) *party {
	p := j.entities[id]
	if p == nil {
		p = j.reserved(name, id, node)
		j.entities[id] = p
	}
	return p
}
