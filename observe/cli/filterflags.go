package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/proto"
)

// filterFlags gathers filters in the order the flags are given, which --not needs.
type filterFlags struct {
	allow, deny filterPair
	negate      bool // --not was the last flag
}

// filterPair is one list of a request: left takes what is said of the source of a
// flow where a flag means either side, right what is said of the destination.
type filterPair struct {
	left, right                  flowpb.FlowFilter
	either, fromSpaces, toSpaces []string // namespaces
	given                        []string // names of flags
}

// filterFlag is one flag. It implements pflag.Value.
type filterFlag struct {
	set   *filterFlags
	name  string
	apply func(*filterPair, string) error
}

func (*filterFlag) String() string { return "" }
func (*filterFlag) Type() string   { return "filter" }

// Set adds a value to the list whose turn it is.
func (f *filterFlag) Set(value string) error {
	to := &f.set.allow
	if f.set.negate {
		to, f.set.negate = &f.set.deny, false
	}
	if !slices.Contains(to.given, f.name) {
		to.given = append(to.given, f.name)
	}
	if err := to.conflict(); err != nil {
		return err
	}
	return f.apply(to, value)
}

type notFlag struct{ set *filterFlags }

func (*notFlag) String() string { return "" }
func (*notFlag) Type() string   { return "" }

func (n *notFlag) Set(string) error {
	if n.set.negate {
		return errors.New("--not twice in a row")
	}
	n.set.negate = true
	return nil
}

func (s *filterFlags) addTo(fs *pflag.FlagSet) {
	fs.Var(&notFlag{s}, "not", "leave out what the next filter matches: --not --from-ip 192.0.2.1")
	fs.Lookup("not").NoOptDefVal = "true"
	s.addEndpoints(fs)
	s.addEvents(fs)
	s.addHTTP(fs)
}

// add declares a filter flag; alone is the value of a flag that takes none.
func (s *filterFlags) add(fs *pflag.FlagSet, name, short, alone, usage string, apply func(*filterPair, string) error) {
	fs.VarP(&filterFlag{s, name, apply}, name, short, usage)
	fs.Lookup(name).NoOptDefVal = alone
}

// addSides declares --from-NAME, --to-NAME and --NAME. put adds a value to the
// source or the destination of a filter.
func (s *filterFlags) addSides(fs *pflag.FlagSet, name, short, what string, put func(f *flowpb.FlowFilter, source bool, value string) error) {
	s.add(fs, "from-"+name, "", "", "flows from "+what, func(p *filterPair, v string) error {
		return p.both(func(f *flowpb.FlowFilter) error { return put(f, true, v) })
	})
	s.add(fs, "to-"+name, "", "", "flows to "+what, func(p *filterPair, v string) error {
		return p.both(func(f *flowpb.FlowFilter) error { return put(f, false, v) })
	})
	s.add(fs, name, short, "", "flows from or to "+what, func(p *filterPair, v string) error {
		return errors.Join(put(&p.left, true, v), put(&p.right, false, v))
	})
}

func (p *filterPair) both(change func(*flowpb.FlowFilter) error) error {
	return errors.Join(change(&p.left), change(&p.right))
}

// conflict refuses flags that the two filters cannot express together.
func (p *filterPair) conflict() error {
	for _, pair := range [][2]string{
		{"ip", "from-ip"}, {"ip", "to-ip"}, {"pod", "from-pod"}, {"pod", "to-pod"},
		{"label", "from-label"}, {"label", "to-label"}, {"port", "from-port"}, {"port", "to-port"},
		{"identity", "from-identity"}, {"identity", "to-identity"},
		{"namespace", "from-namespace"}, {"namespace", "to-namespace"},
		{"namespace", "from-pod"}, {"namespace", "to-pod"},
	} {
		if slices.Contains(p.given, pair[0]) && slices.Contains(p.given, pair[1]) {
			return fmt.Errorf("--%s and --%s cannot be combined", pair[0], pair[1])
		}
	}
	return nil
}

// filters are one or two, as the sides differ; none if no flag was given.
func (p *filterPair) filters() ([]*flowpb.FlowFilter, error) {
	if len(p.given) == 0 {
		return nil, nil
	}
	left := proto.Clone(&p.left).(*flowpb.FlowFilter)
	right := proto.Clone(&p.right).(*flowpb.FlowFilter)
	var err error
	apply := func(pods *[]string, namespaces []string) {
		var e error
		*pods, e = inNamespaces(*pods, namespaces)
		err = errors.Join(err, e)
	}
	for _, f := range []*flowpb.FlowFilter{left, right} {
		apply(&f.SourcePod, p.fromSpaces)
		apply(&f.DestinationPod, p.toSpaces)
	}
	apply(&left.SourcePod, p.either)
	apply(&right.DestinationPod, p.either)
	if err != nil {
		return nil, err
	}
	if proto.Equal(left, right) {
		return []*flowpb.FlowFilter{left}, nil
	}
	return []*flowpb.FlowFilter{left, right}, nil
}

// inNamespaces puts pods without a namespace into each of those given; without
// pods it is all of the namespaces.
func inNamespaces(pods, namespaces []string) ([]string, error) {
	if len(namespaces) == 0 {
		return pods, nil
	}
	if len(pods) == 0 {
		pods = []string{""}
	}
	var out []string
	for _, pod := range pods {
		ns, name, ok := strings.Cut(pod, "/")
		switch {
		case !ok:
			name = pod
		case ns != "" && !slices.Contains(namespaces, ns):
			return nil, fmt.Errorf("pod %s is in none of the namespaces %s", pod, strings.Join(namespaces, ", "))
		case ns != "":
			out = append(out, pod)
			continue
		}
		for _, n := range namespaces {
			out = append(out, n+"/"+name)
		}
	}
	return out, nil
}
