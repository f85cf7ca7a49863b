package reconcile

import (
	"context"
	"errors"
	"maps"

	"github.com/headgate/headgate/policy"
)

// readSecrets reads what the sets that the gate may name refer to. What cannot be
// read is left out: rules that need it match nothing. The caller holds the lock.
func (e *Engine) readSecrets() (map[policy.SecretRef]string, error) {
	values := map[policy.SecretRef]string{}
	if e.cfg.Secrets == nil {
		return values, nil
	}
	var failed error
	seen := map[policy.SecretRef]bool{}
	for _, table := range []policy.L7Table{e.lastSets, e.sets} {
		for _, set := range table {
			for _, ref := range set.SecretRefs() {
				if seen[ref] {
					continue
				}
				seen[ref] = true
				value, err := e.cfg.Secrets(ref)
				if err != nil {
					failed = errors.Join(failed, err)
					continue
				}
				values[ref] = value
			}
		}
	}
	return values, failed
}

// CheckSecrets puts secrets in force that are others than before. Its error says
// which cannot be read.
func (e *Engine) CheckSecrets(ctx context.Context) error {
	e.mu.Lock()
	values, failed := e.readSecrets()
	same := maps.Equal(values, e.secrets)
	e.mu.Unlock()
	if same {
		return failed
	}
	_, err := e.change(ctx, func() error { return nil })
	return errors.Join(failed, err)
}
