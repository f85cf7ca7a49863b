package xds

import (
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestMissingIsEmpty: CONNECT has no path, which rules take for an empty one. A rule that
// matches it must not be allowed without its edits.
func TestMissingIsEmpty(t *testing.T) {
	for path, want := range map[string]bool{".*": true, "": false, "/.*": false, "|/x": true} {
		p, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{
			Method: connectMethod, Path: path, Edits: []policy.HeaderEdit{{HeaderRule: policy.HeaderRule{Name: "X-A", Value: "b"}, Action: policy.HeaderAdd}},
		}}}, options{})
		if err != nil {
			t.Fatal(err)
		}
		if d := p.judge.Decide(&policy.HTTPRequest{Method: []byte(connectMethod), Host: []byte("h:80")}); path != "" && d.Edited != want {
			t.Errorf("path %q: headgate's own proxy: %+v", path, d)
		}
		var got bool
		for _, r := range testsOf(p, nil).GetRequestRules() {
			missing := r.GetOnHeaderMissing()
			if missing == nil {
				continue
			}
			got = true
			if r.GetHeader() != ":path" || missing.GetKey() != r.GetOnHeaderPresent().GetKey() || missing.GetValue() != matched {
				t.Errorf("path %q: %v", path, r)
			}
		}
		if got != want {
			t.Errorf("path %q: it matches one that is missing: %v", path, got)
		}
	}
}
