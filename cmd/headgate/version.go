package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// version is set by the linker in releases: -ldflags "-X main.version=v1.2.3".
var version string

// buildInfo says what a binary was made of.
type buildInfo struct {
	Version   string `json:"version"`
	Commit    string `json:"commit"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

func buildVersion() buildInfo {
	b := buildInfo{Version: version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		b.Version = cmp.Or(b.Version, "devel")
		return b
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value[:min(12, len(s.Value))] + b.Commit
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Commit += "-dirty"
		}
	}
	if b.Version == "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	b.Version = cmp.Or(b.Version, "devel")
	return b
}

func (b buildInfo) String() string {
	commit := ""
	if b.Commit != "" {
		commit = "commit " + b.Commit + ", "
	}
	return fmt.Sprintf("%s (%s%s, %s)", b.Version, commit, b.GoVersion, b.Platform)
}

func newVersionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this binary and of the running agent",
		Example: `  headgate version
  headgate version -o json`,
		Args: wantArgs(),
		RunE: runVersion,
	}
	addSocket(c)
	addOutput(c)
	return c
}

// runVersion does not fail without an agent: the question is answered.
func runVersion(c *cobra.Command, _ []string) error {
	type agentView struct {
		Version string `json:"version"`
	}
	view := struct {
		Client buildInfo  `json:"client"`
		Agent  *agentView `json:"agent"`
	}{Client: buildVersion()}
	err := call(c, 5*time.Second, "", func(ctx context.Context, agent *agentConn) error {
		resp, err := agent.Status(ctx, &agentv1.StatusRequest{})
		if err == nil {
			view.Agent = &agentView{resp.GetVersion()}
		}
		return err
	})
	return show(c, view, func(w io.Writer) error {
		l := newLines()
		l.line("Client", view.Client.String())
		if err != nil {
			l.line("Agent", oneLine(err.Error()))
		} else {
			l.line("Agent", view.Agent.Version)
		}
		return l.write(w)
	})
}
