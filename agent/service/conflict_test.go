package service

import (
	"errors"
	"strings"
	"testing"
)

// One service is not behind another, whichever came first: packets would be led in
// circles, or out to whoever has that address elsewhere.
func TestConflict(t *testing.T) {
	front := &Service{Name: "front", Namespace: "default", Addresses: []Address{address(t, "10.96.0.1:80")}, Backends: backends(t, "10.96.0.2:80"), NodePort: 30080}
	for want, s := range map[string]*Service{
		"":                                        {Name: "a", Addresses: []Address{address(t, "10.96.0.1:81"), address(t, "10.96.0.1:80/UDP")}, Backends: backends(t, "192.0.2.1:80")},
		"10.96.0.1:80/TCP is the address of":      {Name: "b", Addresses: []Address{address(t, "10.96.0.1:80")}},
		"node port 30080 is that of":              {Name: "c", NodePort: 30080},
		"backend 10.96.0.1:9 is the address of":   {Name: "d", Backends: backends(t, "10.96.0.1:9")},
		"backend 10.96.0.7:80 is the address of":  {Name: "e", Addresses: []Address{address(t, "10.96.0.7:80")}, Backends: backends(t, "10.96.0.7:80")},
		"address 10.96.0.2 is backend 10.96.0.2:": {Name: "f", Addresses: []Address{address(t, "10.96.0.2:443")}},
	} {
		s.Namespace = "default"
		err := s.Conflict([]*Service{front})
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", s.Name, err, want)
		}
	}
}
