package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
)

// problem is something wrong, or probably not meant, in a policy file.
type problem struct {
	Document int    `json:"document"` // from 1; 0: the file as a whole
	Object   string `json:"object"`
	Path     string `json:"path"`
	Message  string `json:"message"`
	line     string // all of it, for people
}

// fileView is what is to be said of one file.
type fileView struct {
	File     string    `json:"file"`
	Policies []string  `json:"policies"`
	Errors   []problem `json:"errors"`
	Warnings []string  `json:"warnings"`
}

func newPolicyValidate() *cobra.Command {
	var files []string
	var world worldSource
	c := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check policy files, without an agent",
		Long: `Read policy files as strictly as the agent does and say what is wrong with them:
unknown fields, bad expressions, rules that can match nothing, combinations that
do not go together, each with the file, the document, the field and what to write
instead. It also warns of what is right but probably not meant: L7 rules that
another rule puts out of force, rules that can match nothing or add nothing,
dots that stand for any character, and, with --cases, selectors that select none
of the endpoints described there. The exit code is 1 when any file is bad;
warnings do not count.`,
		Example: `  headgate policy validate policies/
  headgate policy validate web.yaml db.yaml -o json
  generate-policy | headgate policy validate -`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args)+len(files) == 0 {
				return wantArgs("FILE...")(c, args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			read, err := readPolicies(c.InOrStdin(), slices.Concat(args, files))
			if err != nil {
				return err
			}
			views := make([]fileView, 0, len(read))
			for _, f := range read {
				views = append(views, validate(f.Name, f.Data))
			}
			if err := lintFiles(c, read, views, world.world); err != nil {
				return err
			}
			return reportFiles(c, views)
		},
	}
	addFiles(c, &files)
	world.addWorld(c, "cases")
	addOutput(c)
	return c
}

func validate(file string, data []byte) fileView {
	v := fileView{File: file, Policies: []string{}, Errors: []problem{}, Warnings: []string{}}
	policies, err := decode.Decode(file, data)
	for _, p := range policies {
		name := p.Kind + " " + p.FullName()
		v.Policies = append(v.Policies, name)
		for _, w := range p.Warnings {
			v.Warnings = append(v.Warnings, fmt.Sprintf("%s (%s): %s", p.Origin, name, w))
		}
	}
	all := make([]*policy.Policy, len(policies))
	for i := range policies {
		all[i] = &policies[i]
	}
	v.Warnings = append(v.Warnings, policy.Unlearnt(all)...)
	var list decode.Errors
	switch {
	case errors.As(err, &list):
		for _, e := range list {
			v.Errors = append(v.Errors, problem{e.Document, e.Object, e.Path, e.Message, e.Error()})
		}
	case err != nil:
		v.Errors = append(v.Errors, problem{Message: err.Error(), line: err.Error()})
	case len(policies) == 0:
		v.Warnings = append(v.Warnings, file+": no policy in this file")
	}
	return v
}

func reportFiles(c *cobra.Command, views []fileView) error {
	bad, errs := 0, 0
	for _, v := range views {
		for _, warning := range v.Warnings {
			fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", clean(warning))
		}
		for _, e := range v.Errors {
			fmt.Fprintf(c.ErrOrStderr(), "error: %s\n", clean(e.line))
		}
		errs += len(v.Errors)
		bad += min(1, len(v.Errors))
	}
	err := show(c, views, func(w io.Writer) error { return fileLines(w, views) })
	if err == nil && bad > 0 {
		return fmt.Errorf("%d of %d files are bad: mend the errors above (%d) and validate again", bad, len(views), errs)
	}
	return err
}

func fileLines(w io.Writer, views []fileView) error {
	for _, v := range views {
		if len(v.Errors) > 0 {
			continue
		}
		for _, p := range v.Policies {
			if _, err := fmt.Fprintf(w, "%s: %s is valid\n", clean(v.File), clean(p)); err != nil {
				return err
			}
		}
	}
	return nil
}
