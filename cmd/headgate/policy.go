package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

const hintPolicies = "'headgate policy list' shows what there is"

func newPolicyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		Aliases: []string{"policies"},
		Short:   "Apply, list, check and delete policies",
		Long: `Policies are YAML or JSON documents, any number a file: CiliumNetworkPolicy
(short: cnp), CiliumClusterwideNetworkPolicy (ccnp) and CiliumCIDRGroup (ccg) of
cilium.io/v2, and NetworkPolicy (netpol) of networking.k8s.io/v1; with --backend envoy
also CiliumEnvoyConfig (cec) and CiliumClusterwideEnvoyConfig (ccec), whose listeners
egress policies refer to.`,
	}
	c.AddCommand(newPolicyApply(), newPolicyDelete(), newPolicyList(), newPolicyGet(), newPolicyValidate(),
		newPolicyVerdict(), newPolicyExplain(), newPolicySelectors())
	return c
}

// policyChange is a change as JSON and YAML show it.
type policyChange struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Change string `json:"change"`
}

// changeView is the answer to apply and delete.
type changeView struct {
	Revision uint64         `json:"revision"`
	Enforced bool           `json:"enforced"`
	Changes  []policyChange `json:"changes"`
	Warnings []string       `json:"warnings"`
}

// waiting is the --wait and --timeout flags of apply and delete.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) addTo(c *cobra.Command) {
	c.Flags().BoolVar(&w.wait, "wait", true, "return only when in force everywhere on the node")
	c.Flags().DurationVar(&w.timeout, "timeout", waitTimeout, "how long to wait for that")
}

// deadline of the request itself.
func (w *waiting) deadline() time.Duration {
	if w.wait {
		return w.timeout + grace
	}
	return callTimeout
}

// report shows what changed, and fails if it was to be in force and is not.
func (w *waiting) report(c *cobra.Command, v changeView) error {
	for _, warning := range v.Warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", clean(warning))
	}
	err := show(c, v, func(out io.Writer) error {
		for _, change := range v.Changes {
			if _, err := fmt.Fprintf(out, "%s %s %s\n", clean(change.Kind), clean(change.Name), clean(change.Change)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(out, "revision %d%s\n", v.Revision, inForce(v.Enforced))
		return err
	})
	if err == nil && w.wait && !v.Enforced {
		return fmt.Errorf("accepted as revision %d, but not in force after %s; 'headgate status' shows what holds it up", v.Revision, w.timeout)
	}
	return err
}

func inForce(enforced bool) string {
	if enforced {
		return " in force"
	}
	return " accepted, not yet in force"
}

func viewChanges(revision uint64, enforced bool, changes []*agentv1.PolicyChange, warnings []string) changeView {
	v := changeView{revision, enforced, []policyChange{}, notNil(warnings)}
	for _, change := range changes {
		v.Changes = append(v.Changes, policyChange{change.GetKind(), change.GetName(), change.GetChange()})
	}
	return v
}

func newPolicyApply() *cobra.Command {
	var files []string
	var w waiting
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Create or change policies",
		Long: `Send policies to the agent, all or nothing: one bad document and none of them
is taken. The command returns when they are in force on every endpoint of the
node. A policy with the kind and name of an existing one replaces it. Of a
directory, *.yaml, *.yml and *.json are read, in the order of their names.`,
		Example: `  headgate policy apply -f web.yaml -f db.yaml
  headgate policy apply -f policies/
  generate-policy | headgate policy apply -f -`,
		Args: noFileArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			read, err := readPolicies(c.InOrStdin(), files)
			if err != nil {
				return err
			}
			return runApply(c, read, &w)
		},
	}
	addFiles(c, &files)
	w.addTo(c)
	addSocket(c)
	addOutput(c)
	return c
}

func runApply(c *cobra.Command, files []*agentv1.PolicyFile, w *waiting) error {
	p := startProgress(c.ErrOrStderr(), "waiting until the policies are in force")
	req := &agentv1.ApplyPoliciesRequest{Files: files, Wait: w.wait, TimeoutNs: w.timeout.Nanoseconds()}
	var resp *agentv1.ApplyPoliciesResponse
	err := call(c, w.deadline(), "nothing was changed, 'headgate policy validate' shows every problem", func(ctx context.Context, agent *agentConn) (err error) {
		resp, err = agent.ApplyPolicies(ctx, req)
		return err
	})
	p.end()
	if err != nil {
		return err
	}
	return w.report(c, viewChanges(resp.GetRevision(), resp.GetEnforced(), resp.GetChanges(), resp.GetWarnings()))
}

func newPolicyDelete() *cobra.Command {
	var files []string
	var w waiting
	c := &cobra.Command{
		Use:     "delete -f FILE | KIND NAMESPACE/NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete policies",
		Long: `Delete every policy that is named in files, or policies of one kind by name. A
KIND may be short: cnp, ccnp, netpol, ccg. The command returns when nothing on
the node enforces them any more.`,
		Example: `  headgate policy delete -f policies/
  headgate policy delete cnp default/rule1
  headgate policy delete CiliumClusterwideNetworkPolicy no-world`,
		Args: func(c *cobra.Command, args []string) error {
			if len(files) > 0 {
				return noFileArgs(c, args)
			}
			return wantArgs("KIND", "NAMESPACE/NAME...")(c, args)
		},
		ValidArgsFunction: completePolicy,
		RunE: func(c *cobra.Command, args []string) error {
			req, err := deleteRequest(c.InOrStdin(), files, args)
			if err != nil {
				return err
			}
			return runDelete(c, req, &w)
		},
	}
	addFiles(c, &files)
	w.addTo(c)
	addSocket(c)
	addOutput(c)
	return c
}

func deleteRequest(stdin io.Reader, files, args []string) (*agentv1.DeletePoliciesRequest, error) {
	req := &agentv1.DeletePoliciesRequest{}
	if len(files) > 0 {
		read, err := readPolicies(stdin, files)
		req.Files = read
		return req, err
	}
	for _, name := range args[1:] {
		key, err := policyKey(args[0], name)
		if err != nil {
			return nil, err
		}
		req.Keys = append(req.Keys, key)
	}
	return req, nil
}

func runDelete(c *cobra.Command, req *agentv1.DeletePoliciesRequest, w *waiting) error {
	req.Wait, req.TimeoutNs = w.wait, w.timeout.Nanoseconds()
	p := startProgress(c.ErrOrStderr(), "waiting until the policies are gone")
	var resp *agentv1.DeletePoliciesResponse
	err := call(c, w.deadline(), hintPolicies, func(ctx context.Context, agent *agentConn) (err error) {
		resp, err = agent.DeletePolicies(ctx, req)
		return err
	})
	p.end()
	if err != nil {
		return err
	}
	return w.report(c, viewChanges(resp.GetRevision(), resp.GetEnforced(), resp.GetChanges(), nil))
}

func newPolicyList() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the policies of the agent",
		Long: `List policies: REVISION is the one at which the policy last changed, ENDPOINTS
how many endpoints of this node it selects now.`,
		Example: `  headgate policy list
  headgate policy list -o json`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := listPolicies(c, false)
			if err != nil {
				return err
			}
			return showPolicies(c, list)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func listPolicies(c *cobra.Command, source bool) ([]*agentv1.Policy, error) {
	var list []*agentv1.Policy
	err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
		resp, err := agent.ListPolicies(ctx, &agentv1.ListPoliciesRequest{Source: source})
		list = sortedPolicies(resp.GetPolicies())
		return err
	})
	return list, err
}

func sortedPolicies(list []*agentv1.Policy) []*agentv1.Policy {
	return slices.SortedFunc(slices.Values(list), func(a, b *agentv1.Policy) int {
		return cmp.Or(cmp.Compare(a.GetKey().GetKind(), b.GetKey().GetKind()),
			compareNames(a.GetKey().GetNamespace(), a.GetKey().GetName(), b.GetKey().GetNamespace(), b.GetKey().GetName()))
	})
}

// policyView is a policy as JSON and YAML show it.
type policyView struct {
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	Mode      string   `json:"mode"`
	Rules     uint32   `json:"rules"`
	Revision  uint64   `json:"revision"`
	Origin    string   `json:"origin"`
	Endpoints []string `json:"endpoints"`
}

func showPolicies(c *cobra.Command, list []*agentv1.Policy) error {
	views := make([]policyView, 0, len(list))
	t := newTable("KIND", "NAMESPACE/NAME", "MODE", "RULES", "REVISION", "ENDPOINTS")
	for _, p := range list {
		k := p.GetKey()
		views = append(views, policyView{k.GetKind(), k.GetNamespace(), k.GetName(), p.GetMode(),
			p.GetRules(), p.GetRevision(), p.GetOrigin(), notNil(p.GetEndpoints())})
		t.row(k.GetKind(), keyName(k), p.GetMode(), strconv.FormatUint(uint64(p.GetRules()), 10),
			strconv.FormatUint(p.GetRevision(), 10), strconv.Itoa(len(p.GetEndpoints())))
	}
	return show(c, views, t.write)
}
