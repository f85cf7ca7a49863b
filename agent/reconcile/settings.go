package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

// Settings may change while the node works. Flags give the first values; what is
// set later is remembered, and wins over the flags of the next start.
type Settings struct {
	Enforcement  policy.Enforcement
	Audit        bool // no policy denies; what they would deny is reported
	Reset        bool // a connection that policy ends is reset
	HostFirewall bpf.HostFirewall
}

// Names of the settings.
const (
	SettingAudit       = "audit"
	SettingEnforcement = "enforcement"
	SettingHost        = "host-firewall"
	SettingReset       = "reset-on-revoke"
)

// ErrSetting is wrong usage of a setting.
var ErrSetting = errors.New("is no setting")

// values are what each setting may be, by name.
func values() map[string][]string {
	return map[string][]string{
		SettingAudit: {"off", "on"}, SettingReset: {"off", "on"},
		SettingEnforcement: {"default", "always", "never"}, SettingHost: {"off", "audit", "enforce"},
	}
}

// set changes one by name.
func (s *Settings) set(name, value string) error {
	may, ok := values()[name]
	if !ok {
		return fmt.Errorf("%q %w: there are %s", name, ErrSetting, strings.Join(slices.Sorted(maps.Keys(values())), ", "))
	}
	n := slices.Index(may, value)
	if n < 0 {
		return fmt.Errorf("%s=%s %w: write %s", name, value, ErrSetting, strings.Join(may, ", "))
	}
	switch name {
	case SettingAudit:
		s.Audit = n == 1
	case SettingReset:
		s.Reset = n == 1
	case SettingEnforcement:
		s.Enforcement = policy.Enforcement(n)
	case SettingHost:
		s.HostFirewall = bpf.HostFirewall(n)
	}
	return nil
}

func (s *Settings) get(name string) string {
	n := 0
	switch name {
	case SettingAudit:
		n = number(s.Audit)
	case SettingReset:
		n = number(s.Reset)
	case SettingEnforcement:
		n = int(s.Enforcement)
	case SettingHost:
		n = int(s.HostFirewall)
	}
	return values()[name][n]
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Trial is a setting that falls back unless somebody confirms it: whoever locked
// himself out cannot.
type Trial struct {
	Name  string    `json:"name"`
	Back  string    `json:"back"`
	Until time.Time `json:"until"`
}

// Setting is one of them, for listings.
type Setting struct {
	Name, Value string
	Flag        string // what the agent was started with
	Values      []string
	Back        string // to which it falls back unless confirmed; empty: it stays
	Until       time.Time
}

// Config lists the settings.
func (e *Engine) Config() []Setting {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.settings()
	var out []Setting
	for _, name := range slices.Sorted(maps.Keys(values())) {
		s := Setting{Name: name, Value: now.get(name), Flag: e.cfg.Settings.get(name), Values: values()[name]}
		if t := e.trial; t != nil && t.Name == name {
			s.Back, s.Until = t.Back, t.Until
		}
		out = append(out, s)
	}
	return out
}

// settings are those of the flags, with what was set since. The caller holds the lock.
func (e *Engine) settings() Settings {
	s := e.cfg.Settings
	for name, value := range e.chosen {
		_ = s.set(name, value) // it was checked when it was chosen
	}
	return s
}

// SetConfig changes a setting and puts it in force; with trial it falls back after
// that time unless confirmed.
func (e *Engine) SetConfig(ctx context.Context, name, value string, trial time.Duration) error {
	_, err := e.change(ctx, func() error {
		was := e.settings()
		next := was
		if err := next.set(name, value); err != nil {
			return err
		}
		switch {
		case trial > 0:
			back := was.get(name)
			if e.trial != nil && e.trial.Name == name {
				back = e.trial.Back // of a trial within a trial
			} else if e.trial != nil {
				return fmt.Errorf("%s is on trial until %s: confirm it first", e.trial.Name, e.trial.Until.Format(time.TimeOnly))
			}
			if name == SettingHost && back == "off" {
				back = "audit"
			}
			e.trial = &Trial{Name: name, Back: back, Until: time.Now().Add(trial)}
		case e.trial != nil && e.trial.Name == name:
			e.trial = nil
		}
		e.choose(name, value)
		return nil
	})
	if closedByProxy(err) {
		return nil
	}
	return err
}

func (e *Engine) choose(name, value string) {
	if e.chosen == nil {
		e.chosen = map[string]string{}
	}
	e.chosen[name] = value
}

// ConfirmConfig ends the trial: what is set stays. It reports whether there was one.
func (e *Engine) ConfirmConfig() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trial == nil {
		return false, nil
	}
	e.trial = nil
	return true, e.save()
}

// EndTrial lets a setting that nobody confirmed in time fall back.
func (e *Engine) EndTrial(ctx context.Context) error {
	e.mu.Lock()
	over := e.trial != nil && time.Now().After(e.trial.Until)
	e.mu.Unlock()
	if !over {
		return nil
	}
	_, err := e.change(ctx, func() error {
		if e.trial != nil {
			e.cfg.Logger.Warn("a setting was not confirmed in time and falls back", "setting", e.trial.Name, "to", e.trial.Back)
			e.choose(e.trial.Name, e.trial.Back)
			e.trial = nil
		}
		return nil
	})
	if closedByProxy(err) {
		return nil
	}
	return err
}

// hostKey is the key of the subject that this machine is.
const hostKey = "host"

// resolveHost makes this machine a subject as long as host policies are asked for.
func (e *Engine) resolveHost(now Settings) error {
	if now.HostFirewall == bpf.HostOff {
		return nil
	}
	labels, err := policy.NodeLabels(true, e.cfg.NodeLabels)
	if err != nil {
		return fmt.Errorf("labels of this node: %w", err)
	}
	s := e.subjects[hostKey]
	if s == nil {
		s = &subject{number: e.freeSubject()}
		e.subjects[hostKey] = s
	}
	s.of = policy.Subject{Labels: labels, Node: true, Enforcement: now.Enforcement}
	s.users++
	return nil
}

// writeSettings puts them in force, after the tables that they name.
func (e *Engine) writeSettings() error {
	now := e.settings()
	s := bpf.Settings{Reset: now.Reset, Share: e.cfg.Share, Host: now.HostFirewall}
	if host := e.subjects[hostKey]; host != nil && now.HostFirewall != bpf.HostOff {
		s.HostSubject = host.number
	}
	if e.inGate != nil && *e.inGate == s {
		return nil
	}
	if err := e.cfg.Gate.SetSettings(s); err != nil {
		return err
	}
	e.inGate = &s
	return nil
}
