package integration

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// isGenerated says which committed files 'make generate' makes.
func isGenerated(path string) bool {
	for _, suffix := range []string{".pb.go", "_bpfel.go", "_bpfel.o"} {
		if strings.HasSuffix(path, suffix) {
			return true
		}
	}
	return false
}

// TestGenerated makes the generated files anew, in a copy of the tree and without
// the ones that are there, and compares: nobody runs a BPF object whose source is
// not the one beside it.
func TestGenerated(t *testing.T) {
	for _, program := range []string{"make", "clang-14", "llvm-strip-14", "protoc"} {
		needProgram(t, program)
	}
	for _, header := range []string{"/usr/include/bpf/bpf_helpers.h", "/usr/include/linux/bpf.h"} {
		if _, err := os.Stat(header); err != nil {
			missing(t, "this test compiles the datapath: %v: 'make parts' installs it", err)
		}
	}
	root, made := moduleRoot(t), t.TempDir()
	committed := copyTree(t, root, made)
	if len(committed) < 4 {
		t.Fatalf("there are only these generated files: %v", committed)
	}
	tools := filepath.Join(root, ".cache") // installed once for all
	cmd := exec.Command("make", "-C", made, "generate", "CACHE="+tools)
	if out, err := cmd.CombinedOutput(); err != nil {
		if _, err := os.Stat(filepath.Join(tools, "bin", "protoc-gen-go-grpc")); err != nil {
			missing(t, "this test needs generators that could not be installed:\n%s", out)
		}
		t.Fatalf("make generate: %v\n%s", err, out)
	}
	for _, path := range committed {
		want, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(made, path))
		if err != nil {
			t.Errorf("%s is committed and not generated: %v", path, err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source makes: run 'make generate' and commit", path)
		}
	}
	for _, path := range generatedIn(t, made) {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Errorf("%s is generated and not committed: %v", path, err)
		}
	}
}

// copyTree copies what can be a source, and says what of the rest is generated.
func copyTree(t *testing.T, from, to string) []string {
	t.Helper()
	var generated []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || rel == "bin"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		case isGenerated(rel):
			generated = append(generated, rel)
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return generated
}

func generatedIn(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && isGenerated(path) {
			rel, _ := filepath.Rel(dir, path)
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
