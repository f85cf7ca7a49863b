package xds

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestSuccession: an Envoy that follows another finds it by what that has written; one that
// starts anew writes where it is found.
func TestSuccession(t *testing.T) {
	b := &Backend{config: Config{Dir: t.TempDir()}}
	if _, err := b.baseID(); err == nil {
		t.Error("an Envoy that has written nothing is followed")
	}
	if err := os.Mkdir(filepath.Dir(b.file(baseName)), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"7": true, "7\n": true, "-1": false, "": false, "7 --config-path x": false, "99999999999": false} {
		if err := os.WriteFile(b.file(baseName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if base, err := b.baseID(); (err == nil) != want || want && base != 7 {
			t.Errorf("%q: %d, %v", text, base, err)
		}
	}
	// Its user may put there what is no file, or another's.
	path := b.file(baseName)
	for name, put := range map[string]func() error{
		"a link":      func() error { return os.Symlink(filepath.Join(b.config.Dir, "secret"), path) },
		"a pipe":      func() error { return unix.Mkfifo(path, 0o600) },
		"a directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := errors.Join(os.WriteFile(filepath.Join(b.config.Dir, "secret"), []byte("7"), 0o600), os.RemoveAll(path), put()); err != nil {
			t.Fatal(err)
		}
		if base, err := b.baseID(); err == nil {
			t.Errorf("%s: %d", name, base)
		}
	}
	var none *succession
	first := none.arguments(Args("{}", 1))
	if !slices.Contains(first, "--use-dynamic-base-id") || !slices.Contains(first, "--base-id-path") || slices.Contains(first, "--restart-epoch") {
		t.Errorf("the first is started with %q", first)
	}
	next := strings.Join((&succession{old: &process{Epoch: 2}, base: 7}).arguments(Args("{}", 1)), " ")
	if strings.Contains(next, "dynamic") || !strings.Contains(next, "--socket-mode 600 --skip-hot-restart-parent-stats --base-id 7 --restart-epoch 3 --parent-shutdown-time-s 600") {
		t.Errorf("the next is started with %q", next)
	}
}

// TestWhoCanBeFollowed: one that cannot be is ended, which the next agent must know of.
func TestWhoCanBeFollowed(t *testing.T) {
	b := &Backend{config: Config{Dir: t.TempDir(), UID: 7}}
	if err := errors.Join(os.Mkdir(filepath.Dir(b.file(baseName)), 0o700), os.WriteFile(b.file(baseName), []byte("7"), 0o600)); err != nil {
		t.Fatal(err)
	}
	self := &process{PID: os.Getpid()}
	if err := self.open(); err != nil {
		t.Fatal(err)
	}
	defer self.close()
	for name, c := range map[string]struct {
		old  process
		can  bool
		once bool
	}{
		"as it should":           {old: process{Meets: b.meets()}, can: true},
		"of an earlier version":  {old: process{}},
		"of another user":        {old: process{Meets: (&Backend{}).meets()}},
		"one drains":             {old: process{Meets: b.meets(), Before: self}},
		"one has drained":        {old: process{Meets: b.meets(), Before: &process{PID: self.PID, Started: self.Started + 1}}, can: true},
		"the next did not start": {old: process{Meets: b.meets()}, once: true},
	} {
		b.replaced = c.once
		if base, err := b.follow(&c.old); (err == nil) != c.can || c.can && base != 7 {
			t.Errorf("%s: %d, %v", name, base, err)
		}
	}
}

// TestSettings: whatever an Envoy would be started with otherwise, or by, makes it another.
func TestSettings(t *testing.T) {
	program := filepath.Join(t.TempDir(), "envoy")
	write := func() {
		if err := os.WriteFile(program+".new", []byte("x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	write()
	of := func(c Config) string {
		c.Dir, c.Path = "/run", program
		b := &Backend{config: c}
		s, err := b.settingsOf()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := Config{NodeID: "a", Workers: 1, UID: 7}
	same := of(one)
	if of(one) != same {
		t.Error("the same settings differ")
	}
	for name, c := range map[string]Config{"workers": {NodeID: "a", Workers: 2, UID: 7}, "user": {NodeID: "a", Workers: 1, UID: 8}, "node": {NodeID: "b", Workers: 1, UID: 7}} {
		if of(c) == same {
			t.Errorf("%s: other settings are the same", name)
		}
	}
	write()
	if of(one) == same {
		t.Error("another program is the same")
	}
}

// TestAgentEndsWhileEnvoyIsReplaced: the next agent finds the one before, which still
// carries; and what drains is ended with the one that took over.
func TestAgentEndsWhileEnvoyIsReplaced(t *testing.T) {
	b := newHolding(t)
	b.settings = "old"
	old, err := b.startProcess(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.close()
	t.Cleanup(func() { _ = old.endOther() })
	h := b.startHolderOf(t)
	if err := writeJSON(b.file(processName), process{Settings: "new", Holder: h.holder, Epoch: 1, Before: old}); err != nil {
		t.Fatal(err)
	}
	found := running(b.config.Dir)
	if found == nil || found.PID != old.PID || found.Settings != "old" {
		t.Fatalf("the next agent finds %+v, want %+v", found, old)
	}
	found.close()
	if h.runs() {
		t.Error("what was about to start Envoy waits on")
	}

	b.settings = "new"
	p, err := b.startProcess(&succession{old: old, base: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if found = running(b.config.Dir); found == nil || found.PID != p.PID || found.Epoch != 1 || found.Before == nil || found.Before.PID != old.PID || !found.Before.alive() {
		t.Fatalf("the next agent finds %+v", found)
	}
	found.close()
	if err := Terminate(t.Context(), filepath.Dir(b.config.Dir)); err != nil {
		t.Fatal(err)
	}
	if !p.ended(0) || old.alive() {
		t.Error("something is left")
	}
}

// TestDrainingIsEnded: what drains loses its connections when a rule of its own changes, and
// is ended when its time is over; not before.
func TestDrainingIsEnded(t *testing.T) {
	b := newHolding(t)
	b.custom = newCustom()
	old, err := b.startProcess(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.close()
	t.Cleanup(func() { _ = old.endOther() })
	rules := func(path string) *program {
		p, err := programOf(&policy.L7Set{ID: policy.SetID{path[1]}, Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: path}}}, options{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := pair{ingress: number}
	b.ports = map[pair]redirect.ProxyPort{p: 1}
	b.sets = map[redirect.SetNumber]*program{number: rules("/a")}
	if err := b.keepRules(); err != nil {
		t.Fatal(err)
	}
	if got := b.loadPorts(); got[p] != 1 {
		t.Fatalf("the ports are %v", got)
	}
	b.draining.Store(old)
	if !b.drains(unix.Ucred{Pid: int32(old.PID)}) || b.drains(unix.Ucred{Pid: 1}) {
		t.Error("it is not known by its process")
	}
	b.draining.Store(&process{PID: old.PID, Started: old.Started - 1})
	if b.drains(unix.Ucred{Pid: int32(old.PID)}) {
		t.Error("another process of its number is taken for it")
	}
	b.draining.Store(old)
	now := &process{PID: os.Getpid(), Before: old}
	old.Until = time.Now().Add(time.Hour).Unix()
	b.sets[number+1] = rules("/b")
	b.sets[number] = rules("/a")
	if err := b.endOutdated(t.Context()); err != nil || !old.alive() {
		t.Fatalf("it was ended for rules of others: %v", err)
	}
	if err := b.watchDraining(now); err != nil || now.Before == nil || !old.alive() {
		t.Fatalf("it was ended before its time: %v", err)
	}
	b.sets[number] = rules("/c")
	if err := b.endOutdated(t.Context()); err != nil || !old.alive() || b.oldRules != nil {
		t.Fatalf("its connections were not ended, or it was: %v", err)
	}
	if err := old.endOther(); err != nil {
		t.Fatal(err)
	}
	if err := b.watchDraining(now); err != nil || now.Before != nil || b.draining.Load() != nil {
		t.Errorf("it is not forgotten: %+v, %v", now, err)
	}

	late, err := b.startProcess(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer late.close()
	late.Until = time.Now().Add(-time.Second).Unix()
	now.Before = late
	if err := b.watchDraining(now); err != nil || late.alive() {
		t.Errorf("it goes on after its time: %v", err)
	}
}
