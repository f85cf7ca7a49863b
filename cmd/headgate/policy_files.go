package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

const (
	// stdinName is the -f that means standard input.
	stdinName = "-"
	// maxPolicyFile bounds one file: no one writes more by hand, and a device
	// file named by mistake has no end.
	maxPolicyFile = 32 << 20
)

func addFiles(c *cobra.Command, files *[]string) {
	c.Flags().StringArrayVarP(files, "file", "f", nil, "file, directory, or - for standard input (repeatable)")
	mustRegister(c.MarkFlagFilename("file", "yaml", "yml", "json"))
}

// noFileArgs reminds those who name files without -f.
func noFileArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q takes no arguments: write -f %s", c.CommandPath(), args[0])
	}
	if !c.Flags().Changed("file") {
		return usagef("%q needs -f FILE|DIR|-", c.CommandPath())
	}
	return nil
}

// readPolicies reads files, the policy files of directories, and stdin for "-".
func readPolicies(stdin io.Reader, names []string) ([]*agentv1.PolicyFile, error) {
	var files []*agentv1.PolicyFile
	fromStdin := false
	for _, name := range names {
		if name != stdinName {
			found, err := readPath(name)
			if err != nil {
				return nil, err
			}
			files = append(files, found...)
			continue
		}
		if fromStdin {
			return nil, usagef("standard input can be read once: -f - is given twice")
		}
		fromStdin = true
		data, err := readBounded(stdin, "standard input")
		if err != nil {
			return nil, err
		}
		files = append(files, &agentv1.PolicyFile{Name: "stdin", Data: data})
	}
	return files, nil
}

// readPath reads a file, or the policy files of a directory in order of name.
func readPath(name string) ([]*agentv1.PolicyFile, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, explainFile(name, err)
	}
	if !info.IsDir() {
		file, err := readFile(name)
		return []*agentv1.PolicyFile{file}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, explainFile(name, err)
	}
	var files []*agentv1.PolicyFile
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		file, err := readFile(filepath.Join(name, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no policies in %s: no file there ends in .yaml, .yml or .json", name)
	}
	return files, nil
}

func readFile(name string) (*agentv1.PolicyFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, explainFile(name, err)
	}
	defer f.Close()
	data, err := readBounded(f, name)
	if err != nil {
		return nil, err
	}
	return &agentv1.PolicyFile{Name: name, Data: data}, nil
}

func readBounded(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPolicyFile+1))
	if err != nil {
		return nil, explainFile(name, err)
	}
	if len(data) > maxPolicyFile {
		return nil, fmt.Errorf("%s is larger than %d MiB: is it a policy? split it", name, maxPolicyFile>>20)
	}
	return data, nil
}

func explainFile(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no file or directory %s", name)
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("read %s: %w", name, err)
}
