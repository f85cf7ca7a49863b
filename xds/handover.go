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

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// An Envoy that was started with other settings, or is another program, or whose listeners
// would be made otherwise, is replaced by Envoy's hot restart: the next one takes over its
// listening sockets once it has its rules, and has it drain. What drains has the rules of
// before and is told of no others: a change of one ends its connections (drain.go).

// drainGrace is how long connections may stay with an Envoy that was replaced; then the next
// one has it end, or if that cannot, the agent does. That one counts from when it was ready.
const (
	drainGrace = 10 * time.Minute
	drainSlack = startWithin + 10*time.Second
)

// baseName is the file in which Envoy tells by what number the next one finds it, meetName
// what the names of the sockets begin with by which they speak to each other. Where Envoy
// has them otherwise, anybody in its network namespace could.
const (
	baseName = "admin/base-id"
	meetName = "admin/hot"
)

// meets tells Envoys that can speak to each other from others.
func (b *Backend) meets() string { return fmt.Sprintf("%s of %d", meetName, b.config.UID) }

// settingsOf says what an Envoy of this configuration is started with and, by an example,
// what its listeners are like. Equal settings: an Envoy can be taken over.
func (b *Backend) settingsOf() (string, error) {
	sum := sha256.New()
	bootstrap, err := b.bootstrapText()
	if err != nil {
		return "", err
	}
	var first *succession
	fmt.Fprintf(sum, "%q %d", first.arguments(Args(bootstrap, b.config.Workers)), b.config.UID)
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
	var build builder
	one, other := policy.SecretRef{Namespace: "a", Name: "b", Key: "c"}, policy.SecretRef{Namespace: "d", Name: "e", Key: "f"}
	tls := build.tlsListener(example, 1, &tlsPlan{http: true, raw: true, ends: policy.TLSSecrets{Certificate: one, PrivateKey: other, TrustedCA: one}})
	carried := build.tlsListener(example, 1, &tlsPlan{})
	if err := errors.Join(build.check(tls), build.check(carried)); err != nil {
		return "", err
	}
	for _, m := range []proto.Message{plain, raw, cluster, tls, carried} {
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

// replace has another Envoy take over from one whose settings are not ours. It is ended and
// another started if it cannot be followed, if that was tried before, or if it follows one
// that still drains: that cannot be ended by itself.
func (b *Backend) replace(old *process) (*process, error) {
	defer old.close()
	base, err := b.follow(old)
	if err != nil {
		b.log.Warn("Envoy has other settings and is ended, with its connections: it cannot be drained", "pid", old.PID, "error", err)
		if err := b.endBoth(old); err != nil {
			return nil, err
		}
		return b.startProcess(nil)
	}
	b.replaced = true
	old.Before = nil
	b.draining.Store(old)
	p, err := b.startProcess(&succession{old: old, base: base})
	if err != nil {
		return nil, err
	}
	b.log.Info("Envoy has other settings and drains", "pid", old.PID, "grace", drainGrace)
	return p, nil
}

// follow says how to follow an Envoy, or why it cannot be.
func (b *Backend) follow(old *process) (base uint32, err error) {
	switch {
	case b.replaced:
		return 0, errors.New("the one that followed it did not start")
	case old.Meets != b.meets():
		return 0, errors.New("an earlier version started it, or as another user")
	case old.Before != nil && old.Before.alive():
		return 0, fmt.Errorf("process %d, which it follows, still drains", old.Before.PID)
	}
	return b.baseID()
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
	out = append(out, "--socket-path", filepath.Join(inheritedDir, meetName), "--socket-mode", "600", "--skip-hot-restart-parent-stats")
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

// rulesOf tells the rules of a pair from others, for the next agent too, which may have
// read the same policies in another order.
func (b *Backend) rulesOf(p pair) string {
	return b.rulesBy(p, b.custom.listeners, b.custom.configs)
}

func (b *Backend) rulesBy(p pair, listeners map[redirect.SetNumber]*policy.Listener, configs map[string]*policy.EnvoyConfig) string {
	var all []string
	for _, n := range []redirect.SetNumber{p.egress, p.ingress} {
		switch l := listeners[n]; {
		case n == 0:
			all = append(all, "none")
		case l != nil:
			sum := sha256.New()
			if config := configs[l.Key()]; config != nil {
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
