package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
)

// stateVersion is that of the state file. A newer one is refused, not guessed at.
const stateVersion = 1

type stateFile struct {
	Version   int    `json:"version"`
	Namespace uint64 `json:"networkNamespace"` // in which the agent ran
	Cgroup    string `json:"cgroup,omitempty"` // to which programs are attached
	reconcile.State
}

// store keeps the state in one file, replaced as a whole.
type store struct {
	path   string
	cgroup string
}

func newStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	return &store{path: filepath.Join(dir, "state.json")}, nil
}

// save writes the state so that it is there whole, or as it was before, after a
// crash at any moment.
func (s *store) save(state reconcile.State) error {
	ns, err := namespaceID()
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(stateFile{stateVersion, ns, s.cgroup, state}, "", " ")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.path), ".state-*")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// load reads the state; none yet is an empty one.
func (s *store) load() (reconcile.State, error) {
	f, err := readState(s.path)
	return f.State, err
}

func readState(path string) (stateFile, error) {
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return stateFile{}, nil
	}
	if err != nil {
		return stateFile{}, fmt.Errorf("read state: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("read state %s: %w: move the file away to start without it", path, err)
	}
	if f.Version != stateVersion {
		return f, fmt.Errorf("read state %s: it is of version %d, this agent knows %d", path, f.Version, stateVersion)
	}
	return f, nil
}

// policiesOf decodes the policies of a state again. One that this version refuses
// stops the agent: to go on without it could let through what it denied.
func policiesOf(state reconcile.State) ([]*reconcile.Policy, error) {
	var out []*reconcile.Policy
	for _, sp := range state.Policies {
		decoded, err := decode.Decode(sp.Origin, []byte(sp.Source))
		if err != nil {
			return nil, fmt.Errorf("read remembered policy %s: %w", sp.Key, err)
		}
		for _, p := range decoded {
			if err := errors.Join(policy.Unenforceable(&p)...); err != nil {
				return nil, fmt.Errorf("read remembered policy: %w", err)
			}
			p.Origin = sp.Origin
			out = append(out, &reconcile.Policy{Policy: p, Revision: sp.Revision})
		}
	}
	return out, nil
}
