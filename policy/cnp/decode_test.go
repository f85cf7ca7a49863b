package cnp

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Decode reads the kinds of this package alone.
func Decode(file string, data []byte) ([]policy.Policy, error) {
	return manifest.Decode(file, data, Kinds())
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	name := strings.TrimSuffix(file, filepath.Ext(file)) + ".golden"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (-update writes it anew):\n%s", name, got)
	}
}

func eachFile(t *testing.T, pattern string, f func(t *testing.T, file string, data []byte)) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		if filepath.Ext(file) == ".golden" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f(t, file, data)
		})
	}
}

func TestValid(t *testing.T) {
	eachFile(t, "testdata/valid/*", func(t *testing.T, file string, data []byte) {
		policies, err := Decode(filepath.Base(file), data)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for i := range policies {
			render(&out, &policies[i])
		}
		golden(t, file, out.String())
	})
}

func TestRefused(t *testing.T) {
	eachFile(t, "testdata/refused/*", func(t *testing.T, file string, data []byte) {
		policies, err := Decode(filepath.Base(file), data)
		if err == nil || policies != nil {
			t.Fatalf("accepted: %+v", policies)
		}
		var first *manifest.Error
		if !errors.As(err, &first) || first.Document == 0 || first.File == "" {
			t.Errorf("%#v is not an *Error with a place", first)
		}
		golden(t, file, err.Error()+"\n")
	})
}

// render writes a policy such that any change of meaning shows.
func render(out *strings.Builder, p *policy.Policy) {
	fmt.Fprintf(out, "%s (%s)\n", p.Key(), p.Origin)
	if p.Mode != policy.ModeEnforce || p.DenyResponse != nil {
		fmt.Fprintf(out, "  mode %s, denied clients get %+v\n", p.Mode, p.DenyResponse)
	}
	if len(p.CIDRs) > 0 {
		fmt.Fprintf(out, "  addresses %v, labels %v\n", p.CIDRs, p.Labels)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(out, "  warning: %s\n", w)
	}
	for _, r := range p.Rules {
		fmt.Fprintf(out, "  %s: %s", r.Ref, r.Direction)
		if r.Deny {
			out.WriteString(" deny")
		}
		if r.DefaultDeny {
			out.WriteString(" default-deny")
		}
		if r.Node {
			out.WriteString(" node")
		}
		fmt.Fprintf(out, "\n    subject %s\n", r.Subject)
		for _, q := range r.Requires {
			fmt.Fprintf(out, "    requires %s\n", q)
		}
		if r.AnyPeer {
			out.WriteString("    any peer\n")
		}
		for _, peer := range r.Peers {
			fmt.Fprintf(out, "    peer %T %v\n", peer, peer)
		}
		for _, port := range r.Ports {
			fmt.Fprintf(out, "    port proto=%d %d-%d %q: %s\n", port.Proto, port.First, port.Last, port.Name, port.Ref.Path)
			if port.Listener != nil {
				fmt.Fprintf(out, "      listener %+v\n", *port.Listener)
			}
			if port.TLS != nil {
				fmt.Fprintf(out, "      TLS ended by %+v with %+v, begun again by %+v\n", port.TLS.Certificate, port.TLS.PrivateKey, port.TLS.TrustedCA)
				fmt.Fprintf(out, "      clients' certificates by %+v, its own %+v with %+v\n", port.TLS.ClientCA, port.TLS.OwnCertificate, port.TLS.OwnKey)
			}
			renderL7(out, port.L7)
		}
	}
}

func renderL7(out *strings.Builder, l7 *policy.L7Rules) {
	if l7 == nil {
		return
	}
	for _, h := range l7.HTTP {
		fmt.Fprintf(out, "      %s method=%q path=%q host=%q headers=%q: %s\n", l7.Protocol, h.Method, h.Path, h.Host, h.Headers, h.Ref.Path)
		for _, e := range h.Edits {
			fmt.Fprintf(out, "        edit %d %q %v\n", e.Action, e.HeaderRule, e.Secret)
		}
		for _, s := range h.Secrets {
			fmt.Fprintf(out, "        secret %+v\n", s)
		}
	}
	for _, g := range l7.GRPC {
		fmt.Fprintf(out, "      grpc %+v\n", g)
	}
	for _, k := range l7.Kafka {
		fmt.Fprintf(out, "      kafka %+v\n", k)
	}
	for _, d := range l7.DNS {
		fmt.Fprintf(out, "      dns %+v\n", d)
	}
	for _, n := range l7.TLS {
		fmt.Fprintf(out, "      server name %+v\n", n)
	}
}

func TestDecodeIsAllOrNothing(t *testing.T) {
	good := "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {endpointSelector: {}, ingress: [{}]}\n"
	if p, err := Decode("f", []byte(good)); err != nil || len(p) != 1 || string(p[0].Source) != good || p[0].Key() != "CiliumNetworkPolicy/default/a" {
		t.Errorf("%+v %v", p, err)
	}
	bad := strings.ReplaceAll(strings.ReplaceAll(good, "name: a", "name: b"), "[{}]", "[{toGroups: []}]")
	p, err := Decode("f.yaml", []byte(good+"---\n"+bad))
	if p != nil || err == nil {
		t.Fatalf("%+v %v", p, err)
	}
	want := `f.yaml: document 2 (CiliumNetworkPolicy default/b): spec.ingress[0].toGroups: `
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q does not begin with %q", err, want)
	}
	if p, err := Decode("f", []byte("# nothing\n---\n\n")); err != nil || len(p) != 0 {
		t.Errorf("an empty file: %+v %v", p, err)
	}
}

// TestAliasesAreBounded: a few lines cannot stand for millions of values.
func TestAliasesAreBounded(t *testing.T) {
	doc := "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec:\n  endpointSelector: {}\n  ingress:\n" +
		"  - &rule\n    fromEndpoints:\n    - &sel\n      matchExpressions:\n      - &expr\n        key: a\n        operator: In\n        values: [x" + strings.Repeat(", x", 200) + "]\n" +
		strings.Repeat("      - *expr\n", 200) + strings.Repeat("    - *sel\n", 200) + strings.Repeat("  - *rule\n", 200)
	_, err := Decode("f", []byte(doc))
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%.200v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*", "testdata/refused/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		policies, err := Decode("fuzz", data)
		if err != nil && policies != nil {
			t.Fatal("both policies and an error")
		}
		ids := policy.NewIdentities()
		for _, p := range policies {
			if p.Name == "" || len(p.Rules) == 0 && p.Kind != KindCIDRGroup {
				t.Fatalf("%+v is accepted", p)
			}
			for _, r := range p.Rules {
				if r.Ref.Policy != p.FullName() || r.Ref.Path == "" {
					t.Fatalf("%+v has no place", r)
				}
			}
			_, sets := policy.Resolve(policy.Subject{}, p.Rules, ids)
			for _, set := range sets {
				if _, err := policy.CompileSet(set); err != nil {
					t.Fatalf("accepted, but does not compile: %v", err)
				}
			}
		}
	})
}
