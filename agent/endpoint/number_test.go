package endpoint

import "testing"

// listed is an engine that has some endpoints.
type listed struct {
	Engine
	all []*Endpoint
}

func (l listed) Endpoints() []*Endpoint { return l.all }

// A number is not given out while an endpoint has it, or something of one that is gone
// stays in the datapath.
func TestNumbers(t *testing.T) {
	c := NewConnector(nil, listed{all: []*Endpoint{{ID: 2}}}, nil, nil)
	stuck := []uint32{1, 3}
	c.Stuck = func() []uint32 { return stuck }
	if id, err := c.freeID(); err != nil || id != 4 {
		t.Errorf("number %d, %v; want 4", id, err)
	}
	c.GoOnFrom(7)
	if id, err := c.freeID(); err != nil || id != 8 {
		t.Errorf("number %d, %v; want 8: 7 was another's not long ago", id, err)
	}
	c.GoOnFrom(0)
	if id, err := c.freeID(); err != nil || id != 9 {
		t.Errorf("number %d, %v; want 9", id, err)
	}
	c.nextID, stuck = 0, nil
	if id, err := c.freeID(); err != nil || id != 1 {
		t.Errorf("number %d, %v; want 1, of which nothing is left", id, err)
	}
}
