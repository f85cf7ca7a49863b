package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// newNodeCommands lists the commands that work on this machine rather than on a
// running agent.
func newNodeCommands() []*cobra.Command {
	return []*cobra.Command{newAgentCommand(), newProxyCommand(), newHoldCommand(), newCheckCommand(), newCleanupCommand()}
}

const (
	defaultRunDir   = "/run/headgate"
	defaultStateDir = "/var/lib/headgate"
)

// dirs are where an agent keeps its things.
type dirs struct{ run, state string }

func (d *dirs) addTo(fs *pflag.FlagSet) {
	fs.StringVar(&d.run, "run-dir", defaultRunDir, "directory of the sockets; two agents need two")
	fs.StringVar(&d.state, "state-dir", defaultStateDir, "directory of what survives a reboot; with another --run-dir than the default, a folder of its own in it")
}

// settle gives an agent with a run directory of its own a state of its own, so
// that two agents do not take each other's for theirs.
func (d *dirs) settle(fs *pflag.FlagSet) {
	if abs, err := filepath.Abs(d.run); err == nil {
		d.run = abs
	}
	if d.run != defaultRunDir && !fs.Changed("state-dir") {
		d.state = filepath.Join(d.state, strings.ReplaceAll(strings.Trim(d.run, "/"), "/", "-"))
	}
}

// readConfig sets flags that the command line did not from a YAML file with the
// same keys.
func readConfig(fs *pflag.FlagSet, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return usagef("read --config: %v", err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return usagef("read --config %s: %v", path, err)
	}
	for key, value := range values {
		f := fs.Lookup(key)
		if f == nil || key == "config" {
			return usagef("%s: %q is not a setting of the agent; see 'headgate agent --help'", path, key)
		}
		if f.Changed {
			continue
		}
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			if err := fs.Set(key, asFlag(v)); err != nil {
				return usagef("%s: %s: %v", path, key, err)
			}
		}
	}
	return nil
}

func asFlag(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	out, _ := yaml.Marshal(v)
	return strings.TrimSpace(string(out))
}

// newLogger logs to stderr.
func newLogger(format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	return nil, usagef("--log-format %q: write text or json", format)
}
