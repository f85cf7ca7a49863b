package observe

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// Every constant has words and a name that a filter finds again; those of Hubble's
// numbers have Hubble's name.
func TestReasons(t *testing.T) {
	for name, r := range reasonConstants(t) {
		if r.words() == "" {
			t.Errorf("%s has no words", name)
		}
		hubble, known := flowpb.DropReason_name[int32(r)]
		if known == r.Own() || known && r.Name() != hubble {
			t.Errorf("%s: name %q, own %v; Hubble's is %q", name, r.Name(), r.Own(), hubble)
		}
		if r == ReasonNone {
			continue
		}
		if got, ok := ParseDropReason(r.Name()); !ok || got != r {
			t.Errorf("%s: ParseDropReason(%q) = %d, %v", name, r.Name(), got, ok)
		}
	}
	if got := DropReason(77).String(); got != "Reason 77" {
		t.Errorf("unknown reason is %q", got)
	}
	for _, bad := range []string{"", "0", "256", "NOPE", "DROP_REASON_UNKNOWN"} {
		if r, ok := ParseDropReason(bad); ok {
			t.Errorf("ParseDropReason(%q) = %d", bad, r)
		}
	}
}

func reasonConstants(t *testing.T) map[string]DropReason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]DropReason)
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				v, err := strconv.Atoi(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				all[spec.Names[0].Name] = DropReason(v)
			}
		}
		return true
	})
	if len(all) < 20 {
		t.Fatalf("only %d constants found", len(all))
	}
	return all
}
