package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

const (
	defaultSocket = "/run/headgate/headgate.sock"
	socketEnv     = "HEADGATE_SOCKET"

	// callTimeout is for requests that need no waiting in the agent.
	callTimeout = 30 * time.Second
	// waitTimeout is the default of commands that return once policy is in force.
	waitTimeout = 30 * time.Second
	// grace is what an agent that was given a deadline may take to say so.
	grace = 5 * time.Second
	// maxMessage bounds one answer of the agent; kernel maps are long listings.
	maxMessage = 256 << 20
)

// addSocket gives a command the --socket flag.
func addSocket(c *cobra.Command) {
	def := os.Getenv(socketEnv)
	if def == "" {
		def = defaultSocket
	}
	c.Flags().String("socket", def, "socket of the agent ($"+socketEnv+")")
}

// agentConn is a connection to a running agent.
type agentConn struct {
	agentv1.AgentClient
	*grpc.ClientConn
	socket string
}

// connect reaches the agent that the command's --socket names.
func connect(c *cobra.Command) (*agentConn, error) {
	socket, err := c.Flags().GetString("socket")
	if err != nil {
		return nil, err
	}
	return dial(c.Context(), socket)
}

// dial connects before it returns, so that a missing agent is told from a
// request that the agent refused.
func dial(ctx context.Context, socket string) (*agentConn, error) {
	var dialer net.Dialer
	first, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, explainDial(socket, err)
	}
	var once sync.Once
	conn, err := grpc.NewClient("passthrough:///headgate",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var c net.Conn
			once.Do(func() { c = first })
			if c != nil {
				return c, nil
			}
			return dialer.DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		first.Close()
		return nil, fmt.Errorf("reach the agent at %s: %w", socket, err)
	}
	return &agentConn{agentv1.NewAgentClient(conn), conn, socket}, nil
}

func explainDial(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not open the agent's socket %s: run as the agent's user, mostly root", socket)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("the path of the socket is too long: %s: name a shorter one with --socket", socket)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return fmt.Errorf("cannot reach the agent at %s: is it running? start it with 'headgate agent', or name its socket with --socket", socket)
}

// call runs one request against the agent and puts its refusal in plain words.
func call(c *cobra.Command, timeout time.Duration, hint string, do func(context.Context, *agentConn) error) error {
	agent, err := connect(c)
	if err != nil {
		return err
	}
	defer agent.Close()
	ctx, cancel := context.WithTimeout(c.Context(), timeout)
	defer cancel()
	if err := do(ctx, agent); err != nil {
		return explain(agent.socket, err, hint)
	}
	return nil
}

// netnsForAgent makes a path to a network namespace mean the same in the agent,
// which has another working directory and is another /proc/self.
func netnsForAgent(name string) (string, error) {
	if filepath.Base(name) == name {
		return name, nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find the namespace %s: %w", name, err)
	}
	for _, self := range []string{"/proc/self/", "/proc/thread-self/"} {
		if rest, ok := strings.CutPrefix(path, self); ok {
			return fmt.Sprintf("/proc/%d/%s", os.Getpid(), rest), nil
		}
	}
	return path, nil
}
