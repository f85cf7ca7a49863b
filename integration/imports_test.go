package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/headgate/headgate/"

// mayImport is the import rule: for each package of the module, which of the
// module's it may import. "x/..." is x and all below it. A package that is not
// here has no place in the design yet.
var mayImport = map[string][]string{
	"policy":       {"policy/automaton"},
	"policy/...":   {"policy", "policy/..."},
	"parsers":      {"policy"},
	"parsers/...":  {"policy", "parsers/..."},
	"bpf":          {"policy"},
	"observe":      {"policy"},
	"observe/...":  {"policy", "observe"},
	"redirect":     {"policy"},
	"nameserver":   {"redirect"},
	"proxy/fqdn":   {"redirect", "policy"},
	"proxy/epoll":  {},
	"proxy":        {"proxy/fqdn", "proxy/epoll", "nameserver", "parsers/...", "observe", "redirect", "policy/...", "api/..."},
	"xds":          {"observe", "redirect", "policy/..."},
	"agent/...":    {"bpf", "observe", "redirect", "policy/...", "api/...", "agent/..."},
	"api/...":      {},
	"cmd/...":      {"policy/...", "parsers/...", "bpf", "observe/...", "redirect", "proxy/...", "xds", "agent/...", "api/..."},
	"integration":  {},
	"bench/...":    {},
	"examples/...": {},
}

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// TestImportRule keeps the parts apart that the design keeps apart.
func TestImportRule(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := rule(name)
		if !known {
			t.Errorf("%s is in none of the import rules: give it its place in DESIGN and here", name)
			continue
		}
		for _, other := range ours(p.Imports) {
			if !matches(allowed, other) {
				t.Errorf("%s imports %s, and may import of this module only %v", name, other, allowed)
			}
		}
		for _, other := range ours(append(p.TestImports, p.XTestImports...)) {
			if nobodys(other) && other != name { // what parts mean to each other is theirs to test
				t.Errorf("the tests of %s import %s, which nobody may", name, other)
			}
		}
	}
}

// TestImportRuleItself holds what the rules above must never come to say.
func TestImportRuleItself(t *testing.T) {
	for name, allowed := range mayImport {
		for _, a := range allowed {
			if nobodys(strings.TrimSuffix(a, "/...")) {
				t.Errorf("%s may import %s, which nobody may", name, a)
			}
		}
		if matches(allowed, "proxy") && matches(allowed, "xds") && name != "cmd/..." {
			t.Errorf("%s sees proxy and xds together", name)
		}
	}
}

// nobodys are packages that nothing imports.
func nobodys(name string) bool {
	return matches([]string{"cmd/...", "integration/...", "examples/...", "bench/..."}, name)
}

// rule finds the most particular rule for a package.
func rule(name string) (allowed []string, known bool) {
	if allowed, known = mayImport[name]; known {
		return allowed, true
	}
	best := ""
	for pattern := range mayImport {
		if strings.HasSuffix(pattern, "/...") && matches([]string{pattern}, name) && len(pattern) > len(best) {
			best = pattern
		}
	}
	return mayImport[best], best != ""
}

func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		tree, isTree := strings.CutSuffix(p, "/...")
		if name == tree || isTree && strings.HasPrefix(name, tree+"/") {
			return true
		}
	}
	return false
}

func ours(imports []string) []string {
	var out []string
	for _, i := range imports {
		if name, ok := strings.CutPrefix(i, module); ok {
			out = append(out, name)
		}
	}
	return out
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = moduleRoot(t)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}
