package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

// explainFlags is one question, as it is typed.
type explainFlags struct {
	source                  worldSource
	from, to, port          string
	direction               string
	http, host, grpc, kafka string
	dns, sni                string
	headers                 []string
}

func newPolicyExplain() *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain --from X --to Y --port 80/TCP",
		Short: "Say why a connection or a request is allowed or denied, and what would change that",
		Long: `Answer one question in words: the rule that decided, or the rule that came
nearest and the smallest change that would have allowed it. Without --policy the
policies and endpoints are those of the running agent; with it no agent is
asked, and --cases names a file that describes endpoints.

X and Y are each an endpoint (NAMESPACE/NAME or NAME), an IP address, an entity
(host, remote-node, world, kube-apiserver, health, init, ingress, unmanaged), a
node of the file, or the labels of an endpoint that need not be there, as
app=web,tier=front; its namespace is "default", or what the label
io.kubernetes.pod.namespace says.`,
		Example: `  headgate policy explain --from xwing --to deathstar --port 80/TCP --http 'POST /v1/request-landing'
  headgate policy explain --policy web.yaml --from app=client --to app=web --port 80/TCP
  headgate policy explain --from app=batch --to 192.0.2.7 --port 443/TCP --sni api.example.com -o json`,
		Args: morePolicies,
		RunE: func(c *cobra.Command, args []string) error {
			f.source.policies = append(f.source.policies, args...)
			return runExplain(c, &f)
		},
	}
	f.source.addTo(c)
	flags := c.Flags()
	flags.StringVar(&f.from, "from", "", "who begins the connection")
	flags.StringVar(&f.to, "to", "", "to whom")
	flags.StringVar(&f.port, "port", "", "port and protocol, as 80/TCP; for ICMP the type, as 8/ICMP")
	flags.StringVar(&f.direction, "direction", "", "ask only about ingress or egress (default: both)")
	flags.StringVar(&f.http, "http", "", "an HTTP request, as 'GET /path'")
	flags.StringVar(&f.host, "host", "", "host of the HTTP request or gRPC call")
	flags.StringArrayVar(&f.headers, "header", nil, "header of the HTTP request or gRPC call, as 'name: value' (repeatable)")
	flags.StringVar(&f.grpc, "grpc", "", "a gRPC call, as package.Service/Method")
	flags.StringVar(&f.kafka, "kafka", "", "a Kafka request, as 'produce topic=t client=c group=g txn=x version=3'")
	flags.StringVar(&f.dns, "dns", "", "a DNS question: the name")
	flags.StringVar(&f.sni, "sni", "", "server name that the client gives when TLS begins")
	addSocket(c)
	addOutput(c)
	return c
}

func runExplain(c *cobra.Command, f *explainFlags) error {
	q, err := f.question(c)
	if err != nil {
		return err
	}
	world, policies, err := f.source.read(c)
	if err != nil {
		return err
	}
	if q.From, err = readEnd(world, f.from); err == nil {
		q.To, err = readEnd(world, f.to)
	}
	if err != nil {
		return err
	}
	judge, err := newJudge(c, world, policies)
	if err != nil {
		return err
	}
	a, err := judge.Explain(q)
	if err != nil {
		return err
	}
	v := viewAnswer(&a, policies)
	v.Question = fmt.Sprintf("%s to %s, %s", f.from, f.to, f.port)
	return show(c, v, v.write)
}

// explainView is an explanation as JSON and YAML show it.
type explainView struct {
	Question string     `json:"question"`
	Verdict  string     `json:"verdict"`
	L7       bool       `json:"l7"`
	Rule     string     `json:"rule"`
	Sides    []sideView `json:"sides"`
}

// sideView is what the policy of one end says.
type sideView struct {
	Direction string   `json:"direction"`
	Of        string   `json:"of"`
	Verdict   string   `json:"verdict"`
	L7        bool     `json:"l7"`
	Rule      string   `json:"rule"`
	Origin    string   `json:"origin"` // the file of the rule, or of the nearest
	Reason    string   `json:"reason"`
	Nearest   string   `json:"nearest"`
	Changes   []string `json:"changes"` // all of them together would have allowed it
}

func viewAnswer(a *verdict.Answer, policies []policy.Policy) *explainView {
	v := &explainView{Verdict: a.Verdict, L7: a.L7, Rule: a.Rule}
	for _, s := range a.Sides {
		word := verdict.Allowed
		if !s.Allowed {
			word = verdict.Denied
		}
		named := s.Rule
		if named == (policy.Ref{}) {
			named = s.Nearest
		}
		v.Sides = append(v.Sides, sideView{
			s.Direction.String(), s.Subject, word, s.L7, s.Rule.String(), originOf(named, policies), s.Reason, s.Nearest.String(), notNil(s.Changes),
		})
	}
	return v
}

func originOf(ref policy.Ref, policies []policy.Policy) string {
	for i := range policies {
		for _, r := range policies[i].Rules {
			if ref.Policy != "" && r.Ref.Policy == ref.Policy && strings.HasPrefix(ref.Path, r.Ref.Path) {
				return policies[i].Kind + " of " + policies[i].Origin
			}
		}
	}
	return ""
}

func (v *explainView) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", v.Verdict, clean(v.Question))
	for _, s := range v.Sides {
		fmt.Fprintf(&b, "\n%s of %s: %s\n", s.Direction, clean(s.Of), s.Verdict)
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(&b, "  %-10s %s\n", name, clean(value))
			}
		}
		line("rule:", s.Rule)
		line("why:", s.Reason)
		line("nearest:", s.Nearest)
		line("from:", s.Origin)
		name := "to allow:"
		for _, change := range s.Changes {
			line(name, change)
			name = "and:"
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
