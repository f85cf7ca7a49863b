package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestUsage wants exit code 2 and one line that says where to read on.
func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"nonsense":                           "unknown command",
		"statu":                              `did you mean "status"`,
		"endpoint":                           "needs one of: add, delete",
		"endpoint lst":                       `did you mean "list"`,
		"--nonsense":                         "unknown flag: --nonsense",
		"status --nonsense":                  "headgate status --help",
		"status extra":                       `takes no arguments, not "extra"`,
		"status --wait-duration x":           "invalid argument",
		"endpoint list -o xml":               "write table, json or yaml",
		"endpoint get":                       "needs NAME",
		"endpoint get a b":                   `what is "b"`,
		"endpoint get a/b/c":                 "write NAME or NAMESPACE/NAME",
		"endpoint add x":                     "--netns is missing",
		"endpoint add x --netns x --label a": "write KEY=VALUE",
		"endpoint add x --netns x --ip 300.1.1.1":                  "is not an IP address",
		"endpoint add x --netns x --port 80":                       "http=80/TCP",
		"endpoint add a/x -n b --netns x":                          "write one of them",
		"endpoint label x":                                         "needs KEY=VALUE|KEY-...",
		"endpoint label x a=1 a-":                                  "both set and removed",
		"service":                                                  "needs one of: add, backend",
		"service add x":                                            "--vip is missing",
		"service add x --vip 10.96.0.1":                            "is not IP:PORT/PROTOCOL",
		"service add x --vip 10.96.0.1:80/SCTP":                    "is not IP:PORT/PROTOCOL",
		"service add x --vip 1.2.3.4:1 --backend a --selector a=b": "exclude each other",
		"service add x --vip 1.2.3.4:1 --node-port 70000":          "invalid argument",
		"service add x --vip 1.2.3.4:1 --headless":                 "exclude each other",
		"service backend add x":                                    "needs BACKEND...",
		"agent --dns maybe":                                        "write on or off",
		"agent --dns-upstream 192.0.2.53":                          "needs --dns on",
		"agent --dns on --dns-upstream x":                          "is not IP or IP:PORT",
		"namespace label x a=1 a=2":                                "given twice",
		"policy apply":                                             "needs -f",
		"policy apply x.yaml":                                      "write -f x.yaml",
		"policy apply -f - -f -":                                   "-f - is given twice",
		"policy delete":                                            "needs KIND NAMESPACE/NAME...",
		"policy delete pod x":                                      "unknown kind",
		"policy delete ccnp a/b":                                   "has no namespace",
		"policy delete -f x y":                                     "takes no arguments",
		"policy validate":                                          "needs FILE...",
		"bpf ipcache list x":                                       "takes no arguments",
		"bpf policy list x y":                                      `what is "y"`,
		"observe --first 1 --last 1":                               "exclude each other",
		"observe -o xml":                                           "not one of compact",
		"completion":                                               "needs one of: bash",
	} {
		socket := filepath.Join(t.TempDir(), "none")
		got := command(t, socket, strings.Fields(args)...)
		if got.code != exitUsage || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q, want %d and %q", args, got.code, got.out, got.err, exitUsage, want)
		}
		oneErrorLine(t, got)
	}
}

func oneErrorLine(t *testing.T, got result) {
	t.Helper()
	if strings.Count(got.err, "\n") != 1 || !strings.HasPrefix(got.err, "headgate: ") {
		t.Errorf("stderr is not one line of headgate: %q", got.err)
	}
}

// TestNoAgent wants every client command to say what to do.
func TestNoAgent(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	missing := filepath.Join(dir, "none")
	for socket, want := range map[string]string{
		missing: "cannot reach the agent at " + missing + ": is it running? start it with 'headgate agent', or name its socket with --socket",
		stale:   "cannot reach the agent at " + stale,
		filepath.Join(dir, strings.Repeat("x", 120)): "too long",
	} {
		for _, args := range []string{"status", "endpoint list", "policy list", "identity list", "observe", "bpf ct list", "endpoint delete x"} {
			got := command(t, "/nowhere", append(strings.Fields(args), "--socket", socket)...)
			if got.code != exitFailed || !strings.Contains(got.err, want) {
				t.Errorf("%s: exit code %d, stderr %q, want %d and %q", args, got.code, got.err, exitFailed, want)
			}
			oneErrorLine(t, got)
		}
	}
}

// TestRefusals puts the agent's answers in plain words.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{status.Error(codes.NotFound, "there is no endpoint default/x."), "there is no endpoint default/x; 'headgate endpoint list' shows what there is"},
		{status.Error(codes.InvalidArgument, "a is bad\nb is bad\nc is bad"), "a is bad (and 2 more lines); "},
		{status.Error(codes.Unimplemented, "unknown method"), "compare versions with 'headgate version'"},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), "did not finish in time; see 'headgate status'"},
		{status.Error(codes.Unavailable, "shutting down"), "lost the agent"},
		{status.Error(codes.Internal, "load program: \x1b[31mno"), `load program: \x1b[31mno`},
		{status.Error(codes.ResourceExhausted, "the policy map is full"), "no room: the policy map is full"},
	} {
		socket := (&fakeAgent{fail: tc.err}).serve(t)
		got := command(t, socket, "endpoint", "delete", "x")
		if got.code != exitFailed || !strings.Contains(got.err, tc.want) {
			t.Errorf("%v: exit code %d, stderr %q, want %q", tc.err, got.code, got.err, tc.want)
		}
		oneErrorLine(t, got)
	}
}

func TestMissingThings(t *testing.T) {
	socket := (&fakeAgent{}).serve(t)
	for args, want := range map[string]string{
		"service get leia":                "service default/leia does not exist; 'headgate service list'",
		"endpoint get leia":               "there is no endpoint default/leia; 'headgate endpoint list'",
		"policy get cnp default/x":        "there is no CiliumNetworkPolicy default/x; 'headgate policy list'",
		"policy apply -f /none":           "no file or directory /none",
		"policy apply -f " + t.TempDir():  "no file there ends in .yaml",
		"policy validate /none/such.yaml": "no file or directory /none/such.yaml",
	} {
		got := command(t, socket, strings.Fields(args)...)
		if got.code != exitFailed || got.out != "" || !strings.Contains(got.err, want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q, want %q", args, got.code, got.out, got.err, want)
		}
		oneErrorLine(t, got)
	}
}

const goodPolicy = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: rule1}
spec: {endpointSelector: {}, ingress: [{}]}
`

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"good.yaml": goodPolicy, "bad.yaml": strings.Replace(goodPolicy, "ingress", "ingres", 1)})
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")

	got := command(t, "/nowhere", "policy", "validate", good)
	if got.code != exitDone || got.out != good+": CiliumNetworkPolicy default/rule1 is valid\n" || got.err != "" {
		t.Errorf("good: exit code %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
	got = command(t, "/nowhere", "policy", "validate", good, "-f", bad)
	if got.code != exitFailed || !strings.Contains(got.err, "error: "+bad) || !strings.Contains(got.err, "ingres") ||
		!strings.Contains(got.err, "\nheadgate: 1 of 2 files are bad") {
		t.Errorf("bad: exit code %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
	got = command(t, "/nowhere", "policy", "validate", bad, "-o", "json")
	if got.code != exitFailed || !strings.Contains(got.out, `"path": "spec`) {
		t.Errorf("json: exit code %d, stdout %q", got.code, got.out)
	}
	if got := commandIn(t, goodPolicy, "/nowhere", "policy", "validate", "-"); got.code != exitDone {
		t.Errorf("stdin: exit code %d, stderr %q", got.code, got.err)
	}
}

func TestVersionAndHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"--version"}, {"version"}, {"help"}, {"endpoint", "add", "--help"}, {"completion", "bash"}} {
		if got := command(t, filepath.Join(t.TempDir(), "none"), args...); got.code != exitDone || got.out == "" || got.err != "" {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, got.code, got.out, got.err)
		}
	}
	got := command(t, (&fakeAgent{}).serve(t), "version", "-o", "json")
	if !strings.Contains(got.out, `"version": "v0.1.0"`) {
		t.Errorf("version of the agent is missing: %s", got.out)
	}
}

// TestHelpTexts wants every command to say what it does, and those that run to
// show how they are used.
func TestHelpTexts(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "completion" && sub.Name() != "help" {
				check(sub)
			}
		}
		if c.Short == "" {
			t.Errorf("%s: no short text", c.CommandPath())
		}
		// People do not run the proxy: the agent does.
		if !c.HasSubCommands() && c.Example == "" && c.Name() != "proxy" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			if len(line) > 92 {
				t.Errorf("%s: the help has a long line: %s", c.CommandPath(), line)
			}
		}
	}
	check(newRootCommand(stdio{nil, os.Stdout, os.Stderr}))
}
