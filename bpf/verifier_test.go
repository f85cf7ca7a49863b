package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// The kernel gives up at a million instructions. Half of that is left for what
// kernels differ in, and for what is to come.
const mostProcessed = 500_000

// work is what one program is to the kernel's verifier.
type work struct {
	program          string
	instructions     int // of the program
	processed        int // by the verifier, on all ways through it
	states, deepest  int
	functions, stack int // how many, and the stack of the hook's own
}

func (w work) String() string {
	return fmt.Sprintf("%-17s %6d instructions, %6d processed, %5d states, %2d functions, %3d bytes of stack (%3d in the largest function)",
		w.program, w.instructions, w.processed, w.states, w.functions, w.stack, w.deepest)
}

// The object that is committed. 'make generate' shows what this says.
func TestVerifierWork(t *testing.T) {
	needRoot(t)
	spec, err := loadGate()
	if err != nil {
		t.Fatal(err)
	}
	verified(t, spec)
}

// The source is C, not what one compiler makes of it.
func TestNewerCompiler(t *testing.T) {
	needRoot(t)
	compiler := newerCompiler(t)
	object := filepath.Join(t.TempDir(), "gate.o")
	args := append([]string{"-target", "bpfel", "-c", "src/gate.bpf.c", "-o", object}, compilerFlags(t)...)
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", compiler, strings.Join(args, " "), err, out)
	}
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(compiler)
	verified(t, spec)
}

// newerCompiler is the newest clang here that is not the one of go:generate.
func newerCompiler(t *testing.T) string {
	t.Helper()
	for version := 25; version > 14; version-- {
		if path, err := exec.LookPath("clang-" + strconv.Itoa(version)); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("there is no clang newer than 14: 'make parts' installs one")
	}
	t.Skip("there is no clang newer than 14: 'make parts' installs one")
	return ""
}

// compilerFlags are those that go:generate compiles with.
func compilerFlags(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(b[bytes.Index(b, []byte("//go:generate")):], []byte("\n"))
	fields := strings.Fields(string(line))
	at := slices.Index(fields, "--")
	if at < 0 {
		t.Fatalf("there are no flags in %q", line)
	}
	return fields[at+1:]
}

// verified loads the programs, and says and bounds what that took.
func verified(t *testing.T, spec *ebpf.CollectionSpec) {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.Maps { // the verifier does not look at room
		if m.Type != ebpf.RingBuf {
			m.MaxEntries = min(m.MaxEntries, 1024)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats, LogSizeStart: 1 << 20},
	})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%v\n%s", err, strings.Join(refused.Log[max(0, len(refused.Log)-20):], "\n"))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	for _, name := range slices.Sorted(maps.Keys(coll.Programs)) {
		w, err := readWork(coll.Programs[name].VerifierLog)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.program, w.instructions = name, len(spec.Programs[name].Instructions)
		t.Log(w)
		if w.processed > mostProcessed {
			t.Errorf("%s: the verifier processes %d instructions, more than %d: make functions global", name, w.processed, mostProcessed)
		}
	}
	if len(coll.Programs) < 3 {
		t.Errorf("only %d programs", len(coll.Programs))
	}
}

var (
	stackLine     = regexp.MustCompile(`stack depth ([0-9+]+)`)
	processedLine = regexp.MustCompile(`processed (\d+) insns .* total_states (\d+)`)
)

// readWork reads the statistics that the kernel logs.
func readWork(log string) (work, error) {
	stacks, counts := stackLine.FindStringSubmatch(log), processedLine.FindStringSubmatch(log)
	if stacks == nil || counts == nil {
		return work{}, fmt.Errorf("the verifier says something new: %.500s", log)
	}
	var w work
	for i, field := range strings.Split(stacks[1], "+") {
		n, err := strconv.Atoi(field)
		if err != nil {
			return work{}, err
		}
		if i == 0 {
			w.stack = n
		}
		w.functions++
		w.deepest = max(w.deepest, n)
	}
	var err, err2 error
	w.processed, err = strconv.Atoi(counts[1])
	w.states, err2 = strconv.Atoi(counts[2])
	return w, errors.Join(err, err2)
}
