package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/redirect"
)

// An Envoy that was started with other settings, or is another program, or whose listeners
// would be made otherwise, is replaced by Envoy's hot restart: the next one takes over its
// listening sockets once it has its rules, and has it drain. What drains has the rules of
// before and is told of no others: a change of one ends it.

// drainGrace is how long connections may stay with an Envoy that was replaced; then the next
// one has it end, or if that cannot, the agent does somewhat later.
const (
	drainGrace = 10 * time.Minute
	drainSlack = 10 * time.Second
)

// baseName is the file in which Envoy tells by what number the next one finds it.
const baseName = "admin/base-id"

// settingsOf says what an Envoy of this configuration is started with and, by an example,
// what its listeners are like. Equal settings: an Envoy can be taken over.
func (b *Backend) settingsOf() (string, error) {
	sum := sha256.New()
	bootstrap, err := b.bootstrapText()
	if err != nil {
		return "", err
	}
	fmt.Fprintln(sum, bootstrap, b.config.Workers, b.config.UID)
	example := pair{egress: 1, ingress: 2}
	plain, err := listenerOf(example, 1, false)
	if err != nil {
		return "", err
	}
	raw, err := listenerOf(example, 1, true)
	if err != nil {
		return "", err
	}
	cluster, err := clusterOf()
	if err != nil {
		return "", err
	}
	for _, m := range []proto.Message{plain, raw, cluster} {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			return "", fmt.Errorf("describe Envoy's listeners: %w", err)
		}
		fmt.Fprintf(sum, "%d %s", len(text), text)
	}
	// Where there is no program, starting it says so.
	if path, err := exec.LookPath(b.config.Path); err == nil {
		var s unix.Stat_t
		if err := unix.Stat(path, &s); err == nil {
			fmt.Fprintln(sum, s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// look finds out which Envoy is to drain, or does, before any is answered.
func (b *Backend) look() error {
	if b.config.Path == "" {
		return nil
	}
	var err error
	if b.settings, err = b.settingsOf(); err != nil {
		return err
	}
	p := running(b.config.Dir)
	if p == nil {
		return nil
	}
	p.close()
	if p.Settings != b.settings {
		b.draining.Store(p)
	} else if p.Before != nil {
		b.draining.Store(p.Before)
	}
	return nil
}

// replace has another Envoy take over from one whose settings are not ours. If that one
// does not say how, or it was tried before, it is ended and another started.
func (b *Backend) replace(old *process) (*process, error) {
	base, err := b.baseID()
	if err != nil || b.replaced {
		b.log.Warn("Envoy has other settings and is ended, with its connections: it cannot be drained", "pid", old.PID, "error", err)
		defer old.close()
		if err := old.end(); err != nil {
			return nil, err
		}
		if err := endUnknown(b.config.Dir); err != nil {
			return nil, err
		}
		b.draining.Store(nil)
		return b.startProcess(nil)
	}
	b.replaced = true
	if old.Before != nil { // Envoy has at most one before it
		if err := old.Before.endOther(); err != nil {
			return nil, err
		}
		old.Before = nil
	}
	b.draining.Store(old)
	p, err := b.startProcess(&succession{old: old, base: base})
	old.close()
	if err != nil {
		return nil, err
	}
	b.log.Info("Envoy has other settings and drains", "pid", old.PID, "grace", drainGrace)
	return p, nil
}

// succession says whom a new Envoy follows.
type succession struct {
	old  *process
	base uint32
}

// arguments are those that have an Envoy follow another, or start anew.
func (s *succession) arguments(args []string) []string {
	var out []string
	for _, a := range args {
		if s == nil || a != "--use-dynamic-base-id" {
			out = append(out, a)
		}
	}
	if s == nil {
		return append(out, "--base-id-path", filepath.Join(inheritedDir, baseName))
	}
	return append(out,
		"--base-id", strconv.FormatUint(uint64(s.base), 10), "--restart-epoch", strconv.Itoa(s.old.Epoch+1),
		"--parent-shutdown-time-s", strconv.Itoa(int(drainGrace/time.Second)))
}

// baseID reads what the Envoy that runs has written. Its user could put anything there, and
// make us wait, or read what is another's: a small file at most, and a number.
func (b *Backend) baseID() (uint32, error) {
	base, err := readNumber(b.file(baseName))
	if err != nil {
		return 0, fmt.Errorf("find out how to follow Envoy: %w", err)
	}
	return base, nil
}

func readNumber(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, errors.Join(fmt.Errorf("read %s: it is no file", path), err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 16))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	base, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	return uint32(base), err
}

// endOther ends a process that may have ended, or be another's number now.
func (p *process) endOther() error {
	q := process{PID: p.PID, Started: p.Started, Holder: p.Holder}
	if q.PID <= 1 || q.open() != nil {
		return q.Holder.end()
	}
	defer q.close()
	return q.end()
}

// watchDraining looks after the Envoy that a newer one has replaced.
func (b *Backend) watchDraining(p *process) error {
	old := p.Before
	if old == nil {
		return nil
	}
	switch {
	case !old.alive():
		b.log.Info("an Envoy that was replaced has drained", "pid", old.PID)
	case time.Now().Unix() > old.Until:
		b.log.Warn("an Envoy that drains is ended: its time is over", "pid", old.PID)
	default:
		return nil
	}
	if err := old.endOther(); err != nil {
		return err
	}
	p.Before = nil
	b.draining.Store(nil)
	return writeJSON(b.file(processName), p)
}

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	q := process{PID: p.PID, Started: p.Started}
	if q.open() != nil {
		return false
	}
	defer q.close()
	return !q.ended(0)
}

// drains reports whether this is the Envoy that has been replaced.
func (b *Backend) drains(who unix.Ucred) bool {
	old := b.draining.Load()
	return old != nil && int(who.Pid) == old.PID
}

// endOutdated ends an Envoy that drains if rules that it judges by have changed. It is called
// with mu held.
func (b *Backend) endOutdated() error {
	old := b.draining.Load()
	if old == nil || !old.alive() {
		return nil
	}
	for p, rules := range b.oldRules {
		if b.rulesOf(p) == rules {
			continue
		}
		b.log.Info("an Envoy that drains is ended: rules of its connections have changed", "pid", old.PID, "route", p.name())
		return old.endOther()
	}
	return nil
}

// rulesOf tells the rules of a pair from others, for the next agent too, which may have
// read the same policies in another order.
func (b *Backend) rulesOf(p pair) string {
	var all []string
	for _, n := range []redirect.SetNumber{p.egress, p.ingress} {
		switch l := b.custom.listeners[n]; {
		case n == 0:
			all = append(all, "none")
		case l != nil:
			sum := sha256.New()
			if config := b.custom.configs[l.Key()]; config != nil {
				for _, r := range config.Resources {
					fmt.Fprintf(sum, "%q %q %q;", r.Type, r.Name, r.Value)
				}
			}
			all = append(all, fmt.Sprintf("%s %x", l, sum.Sum(nil)))
		default:
			all = append(all, b.sets[n].rulesID())
		}
	}
	return strings.Join(all, ", ")
}

// rulesID is what tells the rules of a set from others.
func (p *program) rulesID() string {
	if p == nil || p.set == nil {
		return "closed"
	}
	return fmt.Sprintf("%x %t %x", p.set.ID, p.audit, sha256.Sum256(fmt.Append(nil, p.secrets))) // in the order of their names
}

// keepRules notes what the rules of each pair are now.
func (b *Backend) keepRules() error {
	rules := make(map[pair]string, len(b.ports))
	for p := range b.ports {
		rules[p] = b.rulesOf(p)
	}
	if maps.Equal(rules, b.savedRules) {
		return nil
	}
	b.savedRules = rules
	return b.savePorts()
}
