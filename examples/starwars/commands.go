package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// try makes one request and judges its answer.
func (s *story) try(ctx context.Context, a attempt) error {
	args := clientCommand(a.method, s.url(a), a.v6)
	s.screen.command(a.ship+"$", s.clientName()+" "+shell(args))
	argv := append(append([]string{s.self, "etc", s.etc()}, s.client()...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	// What is set for the ways of this machine must not send a ship elsewhere.
	cmd.Env = append(os.Environ(), "NO_PROXY=*", "no_proxy=*")
	if err := inNetns(s.netns(a.ship), cmd.Start); err != nil {
		return fmt.Errorf("start the client of %s: %w", a.ship, err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("run the client of %s: %w", a.ship, err)
	}
	got, err := parseAnswer(out.String(), cmd.ProcessState.ExitCode())
	if err != nil {
		return fmt.Errorf("read the answer to %s: %w: %s", a.ship, err, diag.String())
	}
	s.screen.output(out.String())
	s.screen.verdict(judge(got) == a.want, string(a.want), describe(got))
	return nil
}

func (s *story) url(a attempt) string { return "http://" + station + a.path }

// headgateShown runs a headgate command and shows it with its answer.
func (s *story) headgateShown(ctx context.Context, args ...string) ([]byte, error) {
	s.screen.command("$", "headgate "+s.short(shell(args)))
	out, err := s.headgateRun(ctx, args...)
	s.screen.output(string(out))
	return out, err
}

func (s *story) headgateRun(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.Headgate, args...)
	var diag bytes.Buffer
	cmd.Stderr = &diag
	cmd.Env = append(os.Environ(), "HEADGATE_SOCKET="+s.socket())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("run headgate %s: %w: %s", shell(args), err, strings.TrimSpace(diag.String()))
	}
	return out, nil
}

// short writes the demo's directory as people would.
func (s *story) short(text string) string { return strings.ReplaceAll(text, s.dir+"/", "$DEMO/") }

// shell quotes what a shell would split or expand.
func shell(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if strings.ContainsAny(a, " \t\"$&|;<>()*?[]{}\\%") {
			quoted[i] = "'" + a + "'"
		}
	}
	return strings.Join(quoted, " ")
}
