package cli

import (
	"io"
	"strings"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/observe"
)

func parse(line string) (*Flags, error) {
	f := &Flags{now: func() time.Time { return testTime }}
	fs := pflag.NewFlagSet("observe", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	f.AddTo(fs)
	return f, fs.Parse(splitArgs(line))
}

// splitArgs splits at spaces outside single quotes.
func splitArgs(line string) []string {
	quoted := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		if r == '\'' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
	for i, f := range fields {
		fields[i] = strings.ReplaceAll(f, "'", "")
	}
	return fields
}

func TestRequest(t *testing.T) {
	for line, want := range map[string]string{
		``:                               `{"number": 20}`,
		`--last 5`:                       `{"number": 5}`,
		`--first 5`:                      `{"number": 5, "first": true}`,
		`--all`:                          `{"number": "18446744073709551615"}`,
		`-f`:                             `{"follow": true}`,
		`-f --last 3`:                    `{"follow": true, "number": 3}`,
		`--since 5m`:                     `{"since": "2026-11-21T06:27:33.123456789Z"}`,
		`--since 5m --last 7`:            `{"since": "2026-11-21T06:27:33.123456789Z", "number": 7}`,
		`--since 2026-11-20 --until 1h`:  `{"since": "2026-11-20T00:00:00Z", "until": "2026-11-21T05:32:33.123456789Z"}`,
		`--until 2026-11-20T01:02+01:00`: `{"until": "2026-11-20T00:02:00Z"}`,

		`--verdict DROPPED --verdict audit`: filters(`{"verdict": ["DROPPED", "AUDIT"]}`),
		`-t drop --type l7`:                 filters(`{"event_type": [{"type": 1}, {"type": 129}]}`),
		`-t drop:PROXY_DOWN`:                filters(`{"event_type": [{"type": 1, "match_sub_type": true, "sub_type": 232}]}`),
		`-t trace:to-endpoint -t trace:from-host -t 5:0`: filters(`{"event_type": [{"type": 4, "match_sub_type": true},
			{"type": 4, "match_sub_type": true, "sub_type": 7}, {"type": 5, "match_sub_type": true}]}`),
		`--protocol tcp --protocol http --to-port 80`: filters(`{"protocol": ["tcp", "http"], "destination_port": ["80"]}`),
		`--from-label a=b --from-label 'c in (d, e)'`: filters(`{"source_label": ["a=b", "c in (d, e)"]}`),
		`--to-label a --from-ip 10.0.0.0/8`:           filters(`{"destination_label": ["a"], "source_ip": ["10.0.0.0/8"]}`),
		`--to-ip 10.0.0.1 --to-ip fd00::1`:            filters(`{"destination_ip": ["10.0.0.1", "fd00::1"]}`),
		`--from-identity world --to-identity 567`:     filters(`{"source_identity": [2], "destination_identity": [567]}`),
		`--http-method PUT --http-path /v1/.* --http-url x --http-status 4+`: filters(
			`{"http_method": ["PUT"], "http_path": ["/v1/.*"], "http_url": ["x"], "http_status_code": ["4+"]}`),
		`--http-header x-token:abc`:                                      filters(`{"http_header": [{"key": "x-token", "value": "abc"}]}`),
		`--drop-reason-desc policy_denied --drop-reason-desc PROXY_DOWN`: filters(`{"drop_reason_desc": [133, 232]}`),
		`--traffic-direction ingress`:                                    filters(`{"traffic_direction": ["INGRESS"]}`),
		`-4`:                                                             filters(`{"ip_version": ["IPv4"]}`),
		`--ipv6 --reply`:                                                 filters(`{"ip_version": ["IPv6"], "reply": [true]}`),
		`--not-reply`:                                                    filters(`{"reply": [false]}`),
		`--tcp-flags syn,ack --tcp-flags RST`:                            filters(`{"tcp_flags": [{"SYN": true, "ACK": true}, {"RST": true}]}`),
		`--node-name n* --uuid abc`:                                      filters(`{"node_name": ["n*"], "uuid": ["abc"]}`),

		`--port 80`:               filters(`{"source_port": ["80"]}, {"destination_port": ["80"]}`),
		`--port 80 --port 443`:    filters(`{"source_port": ["80", "443"]}, {"destination_port": ["80", "443"]}`),
		`--ip 10.0.0.1 --port 80`: filters(`{"source_ip": ["10.0.0.1"], "source_port": ["80"]}, {"destination_ip": ["10.0.0.1"], "destination_port": ["80"]}`),
		`--pod x --verdict ERROR`: filters(`{"source_pod": ["x"], "verdict": ["ERROR"]}, {"destination_pod": ["x"], "verdict": ["ERROR"]}`),
		`-l a --identity 5`:       filters(`{"source_label": ["a"], "source_identity": [5]}, {"destination_label": ["a"], "destination_identity": [5]}`),

		`-n web`:                                      filters(`{"source_pod": ["web/"]}, {"destination_pod": ["web/"]}`),
		`-n web -n db --pod x`:                        filters(`{"source_pod": ["web/x", "db/x"]}, {"destination_pod": ["web/x", "db/x"]}`),
		`--from-namespace web --to-pod db/x`:          filters(`{"source_pod": ["web/"], "destination_pod": ["db/x"]}`),
		`--from-pod x --from-namespace a`:             filters(`{"source_pod": ["a/x"]}`),
		`--from-pod /x --from-namespace a`:            filters(`{"source_pod": ["a/x"]}`),
		`--to-namespace a --to-namespace b`:           filters(`{"destination_pod": ["a/", "b/"]}`),
		`--from-namespace a --to-namespace b -t drop`: filters(`{"source_pod": ["a/"], "destination_pod": ["b/"], "event_type": [{"type": 1}]}`),

		`--not --from-ip 10.0.0.1`:                             without(`{"source_ip": ["10.0.0.1"]}`),
		`--not --verdict FORWARDED --not --protocol udp`:       without(`{"verdict": ["FORWARDED"], "protocol": ["udp"]}`),
		`--not --port 53`:                                      without(`{"source_port": ["53"]}, {"destination_port": ["53"]}`),
		`--not -n kube-system`:                                 without(`{"source_pod": ["kube-system/"]}, {"destination_pod": ["kube-system/"]}`),
		`--not --reply`:                                        without(`{"reply": [true]}`),
		`--verdict DROPPED --not --to-port 53 --protocol http`: `{"number": 20, "whitelist": [{"verdict": ["DROPPED"], "protocol": ["http"]}], "blacklist": [{"destination_port": ["53"]}]}`,
		`--to-port 53 --not --port 53`:                         `{"number": 20, "whitelist": [{"destination_port": ["53"]}], "blacklist": [{"source_port": ["53"]}, {"destination_port": ["53"]}]}`,
	} {
		f, err := parse(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got, err := f.Request()
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		expected := new(observerpb.GetFlowsRequest)
		if err := protojson.Unmarshal([]byte(want), expected); err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		if !proto.Equal(got, expected) {
			t.Errorf("%s:\n got %v\nwant %v", line, got, expected)
		}
		if _, err := observe.CompileFilters(got.GetWhitelist(), got.GetBlacklist()); err != nil {
			t.Errorf("%s: the server refuses it: %v", line, err)
		}
	}
}

func filters(list string) string { return `{"number": 20, "whitelist": [` + list + `]}` }
func without(list string) string { return `{"number": 20, "blacklist": [` + list + `]}` }

func TestFlagsRefused(t *testing.T) {
	for _, line := range []string{
		`--first 1 --last 1`, `--first 1 --all`, `--last 1 --all`, `--first 1 -f`, `-f -o table`,
		`--since yesterday`, `--until 25:00`, `--not`, `--not --not --reply`, `--verdict MAYBE`, `--verdict VERDICT_UNKNOWN`,
		`-t nothing`, `-t l7:x`, `-t drop:x`, `--drop-reason-desc x`, `--traffic-direction up`, `--tcp-flags syn,x`,
		`--ip 10.0.0`, `--from-ip 10.0.0.0/99`, `--port x`, `--identity nobody`, `--http-header x`, `--pod=`, `--label=`, `-n a/b`, `--namespace=`,
		`--ip 10.0.0.1 --from-ip 10.0.0.2`, `--to-port 1 --port 2`, `--pod a --to-pod b`, `-l a --to-label b`,
		`--identity 1 --from-identity 2`, `-n a --from-namespace b`, `-n a --from-pod b`,
		`--from-namespace a --from-pod b/x`, `--not --port 1 --not --to-port 2`,
	} {
		f, err := parse(line)
		if err == nil {
			_, err = f.Request()
		}
		if err == nil {
			t.Errorf("%s was taken", line)
		}
	}
}

// Asking twice gives the same: a client may reconnect.
func TestRequestTwice(t *testing.T) {
	f, err := parse(`-n a --pod b --since 5m --not --port 1`)
	if err != nil {
		t.Fatal(err)
	}
	first, err1 := f.Request()
	second, err2 := f.Request()
	if err1 != nil || err2 != nil || !proto.Equal(first, second) {
		t.Errorf("got %v, %v, then %v, %v", first, err1, second, err2)
	}
}

func TestOptions(t *testing.T) {
	for line, want := range map[string]Options{
		``:                                   {Format: "compact", TimeFormat: "StampMilli", Color: true},
		`-o json --color never --numeric`:    {Format: "json", TimeFormat: "StampMilli", Numeric: true},
		`--print-node-name --time-format X`:  {Format: "compact", TimeFormat: "X", NodeName: true, Color: true},
		`--color always --time-format rfc33`: {Format: "compact", TimeFormat: "rfc33", Color: true},
	} {
		f, err := parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.Options(true); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", line, got, err)
		}
	}
	f, _ := parse(`--color pink`)
	if _, err := f.Options(false); err == nil {
		t.Error("pink was taken")
	}
}

func TestTimeFormats(t *testing.T) {
	for _, name := range strings.Split(timeFormats, ", ") {
		l, err := layout(name)
		if err != nil || testTime.Format(l) == l {
			t.Errorf("%s: %q, %v", name, l, err)
		}
	}
}
