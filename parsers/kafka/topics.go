package kafka

import "sync"

// Topics knows the names of topics by their ids, as one server told them. It is
// shared by the connections to that server, and by those only: what another
// server says of an id must not count here.
type Topics interface {
	Name(id [16]byte) (string, bool)
	Learn(id [16]byte, name string)
}

// Bounds of what is remembered. What is forgotten is looked up again.
const (
	maxServers = 1024
	maxTopics  = 100_000
)

// Directory has the Topics of each server. The zero Directory is empty.
type Directory struct {
	mu      sync.Mutex
	servers map[any]*known
}

// Of returns the Topics of a server, by what tells it from others.
func (d *Directory) Of(server any) Topics {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.servers[server]; k != nil {
		return k
	}
	if d.servers == nil {
		d.servers = map[any]*known{}
	}
	for some := range d.servers {
		if len(d.servers) < maxServers {
			break
		}
		delete(d.servers, some)
	}
	k := &known{names: map[topicID]string{}}
	d.servers[server] = k
	return k
}

// known are the topics of one server.
type known struct {
	mu    sync.RWMutex
	names map[topicID]string
}

func (k *known) Name(id [16]byte) (string, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	name, ok := k.names[id]
	return name, ok
}

func (k *known) Learn(id [16]byte, name string) {
	if id == (topicID{}) || name == "" || len(name) > 249 {
		return
	}
	k.mu.RLock()
	before := k.names[id]
	k.mu.RUnlock()
	if before == name {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for some := range k.names {
		if len(k.names) < maxTopics {
			break
		}
		delete(k.names, some)
	}
	k.names[id] = name
}
