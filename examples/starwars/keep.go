package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// handOver says what to try by hand in a world that stays.
func (s *story) handOver() {
	s.screen.title("Still running: try it by hand")
	enter := "nsenter --net="
	if _, err := exec.LookPath("nsenter"); err != nil {
		enter = s.self + " in "
	}
	client := shell(append([]string{s.self, "etc", s.etc()}, s.client()...))
	land := attempt{method: "POST", path: landingPath}
	hyper := attempt{method: "PUT", path: exhaustPath}
	policies, err := filepath.Abs(s.policies)
	if err != nil {
		policies = s.policies
	}
	fmt.Fprintf(s.screen.w, `export HEADGATE_SOCKET=%s PATH=%s:$PATH
%s%s %s -s --max-time 2 -X POST %s
%s%s %s -s --max-time 2 -X POST %s
%s%s %s -s --max-time 2 -X PUT %s
headgate observe --follow
headgate status
headgate policy list
headgate endpoint label xwing org=empire
headgate policy apply -f %s
headgate policy delete cnp default/rule1

The agent's log is %s. Clean up with:
%s cleanup %s
`,
		s.socket(), filepath.Dir(s.Headgate),
		enter, s.netns("tiefighter"), client, shell([]string{s.url(land)}),
		enter, s.netns("xwing"), client, shell([]string{s.url(land)}),
		enter, s.netns("tiefighter"), client, shell([]string{s.url(hyper)}),
		filepath.Join(policies, "l3-l4.yaml"),
		s.log("agent"),
		s.cleanupCommand(), s.dir)
}

// cleanupCommand names this program, or how to run it again if it was made by
// 'go run' and goes away.
func (s *story) cleanupCommand() string {
	if strings.HasPrefix(s.self, filepath.Join(os.TempDir(), "go-build")) {
		return "go run ./examples/starwars"
	}
	return s.self
}
