// Package secret reads the values that policies refer to from a directory, as
// Kubernetes mounts them: DIR/NAMESPACE/NAME is the value, or a directory with one
// file that is.
//
// Values are read when they are needed and kept by nobody but who enforces them.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/policy"
)

// Dir is a directory of secrets.
type Dir string

// maxValue is more than any header can carry.
const maxValue = 16 << 10

// Read returns a secret. One line end behind it is not part of it.
func (d Dir) Read(ref policy.SecretRef) (string, error) {
	if d == "" {
		return "", fmt.Errorf("read secret %s/%s: the agent has no directory of secrets: start it with --secrets-dir", ref.Namespace, ref.Name)
	}
	if policy.ValidateName(ref.Namespace) != nil || policy.ValidateName(ref.Name) != nil {
		return "", fmt.Errorf("read secret %q/%q: it is no name of a secret", ref.Namespace, ref.Name)
	}
	path := filepath.Join(string(d), ref.Namespace, ref.Name)
	if ref.Key != "" {
		return readKey(path, ref)
	}
	value, err := read(path)
	if err != nil {
		return "", fmt.Errorf("read secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return value, nil
}

// maxKey is more than chains of certificates need.
const maxKey = 256 << 10

// readKey reads one value of a secret that has several, as it is.
func readKey(path string, ref policy.SecretRef) (string, error) {
	if policy.ValidateName(ref.Key) != nil {
		return "", fmt.Errorf("read secret %s/%s: %q is no name of a key", ref.Namespace, ref.Name, ref.Key)
	}
	data, err := readAtMost(filepath.Join(path, ref.Key), maxKey)
	if err != nil {
		return "", fmt.Errorf("read key %s of secret %s/%s: %w", ref.Key, ref.Namespace, ref.Name, err)
	}
	return string(data), nil
}

func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return data, err
}

func read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		if path, err = onlyFile(path); err != nil {
			return "", err
		}
	}
	data, err := readAtMost(path, maxValue)
	if err != nil {
		return "", err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if !policy.ValidHeaderValue(value) {
		return "", fmt.Errorf("%s holds nothing that a header can carry: write one line of text", path)
	}
	return value, nil
}

// onlyFile is the one key of a secret. Names that begin with a dot are not keys.
func onlyFile(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	found := ""
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("%s has several keys, which of them is meant is not said: leave one", dir)
		}
		found = filepath.Join(dir, e.Name())
	}
	if found == "" {
		return "", errors.New(dir + " has no key")
	}
	return found, nil
}
