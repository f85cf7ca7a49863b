package main

import "testing"

// A table stays readable where a name has hundreds of addresses.
func TestJoinFew(t *testing.T) {
	for want, list := range map[string][]string{
		"": nil, "a": {"a"}, "a,b,c,d,e": {"a", "b", "c", "d", "e"}, "a,b,c,d,+2": {"a", "b", "c", "d", "e", "f"},
	} {
		if got := joinFew(list); got != want {
			t.Errorf("%v is shown as %q, want %q", list, got, want)
		}
	}
}
