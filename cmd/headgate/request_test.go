package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRequests wants each command line to ask the agent for the right thing.
func TestRequests(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	key := func(kind, namespace, name string) *agentv1.DeletePoliciesRequest {
		return &agentv1.DeletePoliciesRequest{
			Keys: []*agentv1.PolicyKey{{Kind: kind, Namespace: namespace, Name: name}},
			Wait: true, TimeoutNs: (30 * time.Second).Nanoseconds(),
		}
	}
	add := func(change func(*agentv1.AddEndpointRequest)) *agentv1.AddEndpointRequest {
		req := &agentv1.AddEndpointRequest{Name: "web", Namespace: "default", Netns: "web", Interface: "eth0"}
		change(req)
		return req
	}
	for args, want := range map[string]proto.Message{
		"endpoint add web --netns web": add(func(*agentv1.AddEndpointRequest) {}),
		"endpoint add shop/web --netns 4711 -l app=web -l a=b=c --ip 10.1.2.3 --port http=80/tcp --service-account sa": add(func(r *agentv1.AddEndpointRequest) {
			r.Namespace, r.Netns, r.ServiceAccount = "shop", "4711", "sa"
			r.Labels = map[string]string{"app": "web", "a": "b=c"}
			r.Ips, r.Ports = []string{"10.1.2.3"}, []string{"http=80/tcp"}
		}),
		"endpoint add web -n shop --netns ./web":       add(func(r *agentv1.AddEndpointRequest) { r.Namespace, r.Netns = "shop", here+"/web" }),
		"endpoint add web --netns /proc/self/ns/net":   add(func(r *agentv1.AddEndpointRequest) { r.Netns = fmt.Sprintf("/proc/%d/ns/net", os.Getpid()) }),
		"endpoint delete shop/web":                     &agentv1.EndpointName{Namespace: "shop", Name: "web"},
		"endpoint label web a=b c-":                    &agentv1.LabelEndpointRequest{Namespace: "default", Name: "web", Set: map[string]string{"a": "b"}, Remove: []string{"c"}},
		"namespace label shop a=":                      &agentv1.LabelNamespaceRequest{Name: "shop", Set: map[string]string{"a": ""}},
		"policy delete cnp rule1":                      key("CiliumNetworkPolicy", "default", "rule1"),
		"policy delete CiliumNetworkPolicy shop/rule1": key("CiliumNetworkPolicy", "shop", "rule1"),
		"policy delete ccnp no-world":                  key("CiliumClusterwideNetworkPolicy", "", "no-world"),
		"service add shop/db --vip 10.96.0.11:5432/tcp --vip [fd00::1]:53/UDP --backend a:sql --backend 192.0.2.1:80 -l a=b --node-port 30001 --affinity 60 --target-port sql": &agentv1.Service{
			Name: "db", Namespace: "shop", Addresses: []string{"10.96.0.11:5432/tcp", "[fd00::1]:53/UDP"}, Backends: []string{"a:sql", "192.0.2.1:80"},
			Labels: map[string]string{"a": "b"}, NodePort: 30001, AffinityNs: time.Minute.Nanoseconds(), TargetPort: "sql",
		},
		"service add brokers --headless --selector app=kafka --port kafka=9092/TCP": &agentv1.Service{
			Name: "brokers", Namespace: "default", Headless: true, Selector: map[string]string{"app": "kafka"}, Ports: []string{"kafka=9092/TCP"},
		},
		"service add web -n shop --vip 10.96.0.12:80 --selector app=web": &agentv1.Service{
			Name: "web", Namespace: "shop", Addresses: []string{"10.96.0.12:80"}, Selector: map[string]string{"app": "web"},
		},
		"service delete shop/db":                    &agentv1.ServiceName{Name: "db", Namespace: "shop"},
		"service backend add shop/db a b:1":         &agentv1.BackendsRequest{Name: "db", Namespace: "shop", Backends: []string{"a", "b:1"}},
		"service backend remove db 1.2.3.4:5 --now": &agentv1.BackendsRequest{Name: "db", Namespace: "default", Backends: []string{"1.2.3.4:5"}, Now: true},
		"bpf service list":                          &agentv1.ListMapRequest{Map: "services"},
		"endpoint add x --netns x --resolv-conf":    &agentv1.AddEndpointRequest{Name: "x", Namespace: "default", Netns: "x", Interface: "eth0", ResolvConf: true},
		"bpf policy list web":                       &agentv1.ListMapRequest{Map: "policy", Endpoint: "default/web"},
		"bpf endpoint list":                         &agentv1.ListMapRequest{Map: "endpoints"},
		"bpf route list":                            &agentv1.ListMapRequest{Map: "routes"},
		"bpf fragment list":                         &agentv1.ListMapRequest{Map: "fragments"},
		"bpf drops list":                            &agentv1.ListMapRequest{Map: "drops"},
		"bpf ct list":                               &agentv1.ListMapRequest{Map: "ct"},
		"bpf ipcache list":                          &agentv1.ListMapRequest{Map: "ipcache"},
		"observe --last 7":                          &observerpb.GetFlowsRequest{Number: 7},
		"policy get":                                &agentv1.ListPoliciesRequest{Source: true},
	} {
		t.Run(args, func(t *testing.T) {
			agent := &fakeAgent{}
			got := command(t, agent.serve(t), strings.Fields(args)...)
			if got.code != exitDone {
				t.Fatalf("exit code %d: %s", got.code, got.err)
			}
			if asked := agent.last(t); !proto.Equal(asked, want) {
				t.Errorf("asked %v, want %v", asked, want)
			}
		})
	}
}

func TestApplyReadsFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"b.yaml": "b", "a.yml": "a", "c.json": "c", "d.txt": "d"})
	if err := os.Mkdir(filepath.Join(dir, "e.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(dir, "d.txt")
	agent := &fakeAgent{}
	got := commandIn(t, "s", agent.serve(t), "policy", "apply", "-f", one, "-f", dir, "-f", "-", "--wait=true", "--timeout", "5s")
	if got.code != exitDone {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	golden(t, "policy_apply.table", got.out)
	golden(t, "policy_apply.stderr", got.err)
	want := &agentv1.ApplyPoliciesRequest{Wait: true, TimeoutNs: (5 * time.Second).Nanoseconds(), Files: []*agentv1.PolicyFile{
		{Name: one, Data: []byte("d")},
		{Name: filepath.Join(dir, "a.yml"), Data: []byte("a")},
		{Name: filepath.Join(dir, "b.yaml"), Data: []byte("b")},
		{Name: filepath.Join(dir, "c.json"), Data: []byte("c")},
		{Name: "stdin", Data: []byte("s")},
	}}
	if asked := agent.last(t); !proto.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

func TestApplyNotInForce(t *testing.T) {
	socket := (&fakeAgent{unforced: true}).serve(t)
	got := commandIn(t, "x", socket, "policy", "apply", "-f", "-", "--timeout", "1s")
	if got.code != exitFailed || !strings.Contains(got.err, "not in force after 1s") {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
	if got := commandIn(t, "x", socket, "policy", "apply", "-f", "-", "--wait=false"); got.code != exitDone {
		t.Errorf("without waiting: exit code %d, stderr %q", got.code, got.err)
	}
}

func TestStatusWaits(t *testing.T) {
	n := 0
	agent := &fakeAgent{status: func() *agentv1.StatusResponse {
		if n++; n < 3 {
			return sickStatus()
		}
		return wellStatus()
	}}
	socket := agent.serve(t)
	if got := command(t, socket, "status", "--wait", "--wait-duration", "20s"); got.code != exitDone || got.err != "" {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
	agent.status = sickStatus
	got := command(t, socket, "status", "--wait", "--wait-duration", "300ms")
	if got.code != exitFailed || !strings.Contains(got.err, "after 300ms: not well: proxy") {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
	if !strings.Contains(got.out, "NOT OK") {
		t.Errorf("stdout does not show the last status: %q", got.out)
	}
}

func TestStatusWaitsForAnAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	got := command(t, socket, "status", "--wait", "--wait-duration", "300ms")
	if got.code != exitFailed || !strings.Contains(got.err, "cannot reach the agent at "+socket) {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
}

func TestObserve(t *testing.T) {
	socket := (&fakeAgent{}).serve(t)
	got := command(t, socket, "observe")
	if got.code != exitDone || !strings.Contains(got.out, "rebels/xwing") || !strings.Contains(got.out, "DROPPED") {
		t.Errorf("exit code %d, stdout %q, stderr %q", got.code, got.out, got.err)
	}
	got = command(t, socket, "observe", "-o", "json")
	if !strings.HasPrefix(got.out, `{"flow":`) || strings.Count(got.out, "\n") != 1 {
		t.Errorf("json: %q", got.out)
	}
}

func TestCompletion(t *testing.T) {
	socket := (&fakeAgent{}).serve(t)
	for args, want := range map[string]string{
		"__complete endpoint get ":                        "deathstar\nrebels/xwing\n:4\n",
		"__complete endpoint delete deathstar ":           "rebels/xwing\n:4\n",
		"__complete policy delete cnp ":                   "default/rule1\n:4\n",
		"__complete policy get c":                         "CiliumCIDRGroup\nCiliumClusterwideEnvoyConfig\nCiliumClusterwideNetworkPolicy\nCiliumEnvoyConfig\nCiliumNetworkPolicy\nNetworkPolicy\n:4\n",
		"__complete service get ":                         "deathstar\nrebels\nshop/db\n:4\n",
		"__complete service backend remove ":              "deathstar\nrebels\nshop/db\n:4\n",
		"__complete service backend add deathstar ":       "deathstar\nrebels/xwing\n:4\n",
		"__complete service add x --backend ":             "deathstar\nrebels/xwing\n:4\n",
		"__complete status -o ":                           "table\njson\nyaml\n:4\n",
		"__complete bpf ct list ":                         "deathstar\nrebels/xwing\n:4\n",
		"__complete --socket /none endpoint get ":         "",
		"__complete endpoint get --socket /none/there ''": ":4\n",
	} {
		words := strings.Split(args, " ")
		got := command(t, socket, words...)
		if want != "" && got.out != want {
			t.Errorf("%q: got %q, want %q", args, got.out, want)
		}
	}
}
