package integration

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// envoyFails are the cases of h2spec that Envoy does otherwise; docs/envoy.md says what it
// does, and why that is no way past the rules.
var envoyFails = map[string]string{
	"generic/3.8/1": "a PING after GOAWAY is not answered",
	"http2/3.5/2":   "a connection that does not begin as HTTP/2 is answered as HTTP/1",
	"http2/5.1/8":   "DATA on a stream that was reset is ignored",
	"http2/5.1/9":   "HEADERS on a stream that was reset are ignored",
	"http2/5.1/11":  "DATA on a stream that has ended is ignored",
	"http2/5.1/12":  "HEADERS on a stream that has ended are ignored",
	"http2/5.1.1/2": "HEADERS on a stream lower than the last are ignored",
	"http2/5.3.1/2": "priorities are ignored",
	"http2/6.3/1":   "priorities are ignored",
	"http2/7/1":     "a PING after GOAWAY is not answered",
}

// envoyMayFail are those in which a reset races with what says why.
var envoyMayFail = map[string]string{
	"http2/6.9.1/2": "the connection is reset, and its GOAWAY may be lost",
	"http2/6.9.1/3": "the connection ends, not the stream",
}

// h2specReport is what h2spec writes for machines.
type h2specReport struct {
	Suites []struct {
		Cases []struct {
			Package string    `xml:"package,attr"`
			Name    string    `xml:"classname,attr"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestEnvoyH2spec runs the conformance tests through Envoy: it fails those cases that are
// known, perhaps those that are a race, and no other.
func TestEnvoyH2spec(t *testing.T) {
	t.Parallel()
	h2spec := needPart(t, "h2spec/h2spec")
	n := startNode(t, envoyBackend(t).flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	server.serveHTTP2(t, 80)
	n.apply(t, allow("web", "server", fromApp("client"), 80, httpRule{"", "/.*"}))
	at := server.at(4, 80)
	// run returns the cases that failed, by section and number, and how many there were.
	run := func(seconds int, specs ...string) (failed map[string]string, all int) {
		file := filepath.Join(n.dir, "report.xml")
		args := append([]string{"-h", at.Addr().String(), "-p", fmt.Sprint(at.Port()), "-P", "/?bytes=1000", "-o", fmt.Sprint(seconds), "-j", file}, specs...)
		out, _ := client.attempt(t, h2spec, args...) // it says by its exit code that a case failed
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var report h2specReport
		text = bytes.Map(func(r rune) rune { // it quotes what it received
			if r < ' ' && r != '\n' {
				return -1
			}
			return r
		}, text)
		if err := xml.Unmarshal(text, &report); err != nil {
			t.Fatal(err)
		}
		failed = map[string]string{}
		for _, s := range report.Suites {
			for i, c := range s.Cases {
				all++
				if c.Failure != nil || c.Error != nil || c.Skipped != nil {
					failed[fmt.Sprintf("%s/%d", c.Package, i+1)] = c.Name
				}
			}
		}
		return failed, all
	}
	var slow []string // perhaps no more than that
	failed, all := run(2, "generic", "http2", "hpack")
	if all != 145 {
		t.Errorf("%d cases, want 145", all)
	}
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		if envoyFails[id]+envoyMayFail[id] == "" {
			t.Logf("%q: %q fails", id, failed[id])
			slow = append(slow, id)
		}
	}
	for id := range envoyFails {
		if failed[id] == "" {
			t.Errorf("%s passes: mend docs/envoy.md", id)
		}
	}
	if len(slow) == 0 {
		return
	}
	if again, _ := run(10, slow...); len(again) > 0 {
		t.Errorf("%v fail, with more time too", again)
	}
}
