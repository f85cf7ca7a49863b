package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Exit codes of curl that the story tells apart.
const (
	curlOther   = 1
	curlRefused = 7
	curlTimeout = 28
)

// findCurl is the curl of this machine, or nothing.
func findCurl() string {
	path, err := exec.LookPath("curl")
	if err != nil {
		return ""
	}
	return path
}

// runShip understands the options of curl that the story uses, and exits as
// curl would.
func runShip(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("starwars ship", flag.ContinueOnError)
	method := f.String("X", http.MethodGet, "request `method`")
	maxTime := f.Float64("max-time", 0, "give up after this many `seconds`")
	format := f.String("w", "", "`text` to write at the end; %{http_code} is the status")
	v4 := f.Bool("4", false, "use IPv4 only")
	v6 := f.Bool("6", false, "use IPv6 only")
	f.Bool("s", true, "accepted and ignored: there is no progress meter")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("ship: needs one URL, not %d", f.NArg())
	}
	if *maxTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*maxTime*float64(time.Second)))
		defer cancel()
	}
	network := "tcp"
	if *v4 {
		network = "tcp4"
	} else if *v6 {
		network = "tcp6"
	}
	status, err := fly(ctx, network, *method, f.Arg(0), stdout)
	fmt.Fprint(stdout, writeOut(*format, status))
	if err != nil {
		fmt.Fprintln(stderr, "ship:", err)
		return exitError(curlCode(err))
	}
	return nil
}

// fly makes one request on a connection of its own.
func fly(ctx context.Context, network, method, url string, body io.Writer) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("User-Agent", "headgate-ship")
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(body, resp.Body); err != nil {
		return resp.StatusCode, fmt.Errorf("read the answer: %w", err)
	}
	return resp.StatusCode, nil
}

// writeOut is curl's -w.
func writeOut(format string, status int) string {
	code := fmt.Sprintf("%03d", status)
	return strings.NewReplacer(`\n`, "\n", "%{http_code}", code).Replace(format)
}

func curlCode(err error) int {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return curlTimeout
	case errors.As(err, &op) && op.Op == "dial":
		return curlRefused
	}
	return curlOther
}

// answer is what a ship got.
type answer struct {
	exit   int // of curl
	status int
	body   string
}

// statusFormat makes the client end its output with the status.
const statusFormat = `%{http_code}\n`

// parseAnswer reads the output of a client that was given statusFormat.
func parseAnswer(output string, exit int) (answer, error) {
	const digits = 3
	text, ended := strings.CutSuffix(output, "\n")
	if !ended || len(text) < digits {
		return answer{}, fmt.Errorf("the client wrote no status: %q", output)
	}
	body := text[:len(text)-digits]
	status, err := strconv.ParseUint(text[len(body):], 10, 16)
	if err != nil {
		return answer{}, fmt.Errorf("read the status in %q: %w", output, err)
	}
	return answer{exit: exit, status: int(status), body: strings.TrimSpace(body)}, nil
}

// clientCommand is the client's command line without its first word.
func clientCommand(method, url string, v6 bool) []string {
	version := "-4"
	if v6 {
		version = "-6"
	}
	return []string{version, "-s", "--max-time", "2", "-X", method, "-w", statusFormat, url}
}

// client is how the ships' client is started.
func (o options) client() []string {
	if o.curl != "" {
		return []string{o.curl}
	}
	return []string{o.self, "ship"}
}

// clientName is how a person types it.
func (o options) clientName() string {
	if o.curl != "" {
		return "curl"
	}
	return os.Args[0] + " ship"
}
