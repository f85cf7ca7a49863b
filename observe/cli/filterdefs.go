package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/spf13/pflag"

	"github.com/headgate/headgate/observe"
)

func (s *filterFlags) addEndpoints(fs *pflag.FlagSet) {
	s.addSides(fs, "ip", "", "an address or CIDR", func(f *flowpb.FlowFilter, source bool, v string) error {
		if !isAddress(v) {
			return fmt.Errorf("%q is neither an address nor a CIDR", v)
		}
		return put(&f.SourceIp, &f.DestinationIp, source, v)
	})
	s.addSides(fs, "pod", "", "pods whose name begins so: [NAMESPACE/]NAME", func(f *flowpb.FlowFilter, source bool, v string) error {
		if v == "" {
			return errors.New("name is empty")
		}
		return put(&f.SourcePod, &f.DestinationPod, source, v)
	})
	s.addSides(fs, "label", "l", "endpoints with these labels: key=value, key, !key, key in (a,b)", func(f *flowpb.FlowFilter, source bool, v string) error {
		if v == "" {
			return errors.New("selector is empty")
		}
		return put(&f.SourceLabel, &f.DestinationLabel, source, v)
	})
	s.addSides(fs, "port", "", "a port", func(f *flowpb.FlowFilter, source bool, v string) error {
		if _, err := strconv.ParseUint(v, 10, 16); err != nil {
			return fmt.Errorf("%q is not a port", v)
		}
		return put(&f.SourcePort, &f.DestinationPort, source, v)
	})
	s.addSides(fs, "identity", "", "a security identity: a number, or a name like world", func(f *flowpb.FlowFilter, source bool, v string) error {
		id, ok := observe.ParseIdentity(v)
		if !ok {
			return fmt.Errorf("%q is neither a number nor a reserved identity like host, world, remote-node", v)
		}
		return put(&f.SourceIdentity, &f.DestinationIdentity, source, uint32(id))
	})
	s.addNamespaces(fs)
}

// addNamespaces: namespaces become names of pods when all flags are known.
func (s *filterFlags) addNamespaces(fs *pflag.FlagSet) {
	add := func(name, short, usage string, list func(*filterPair) *[]string) {
		s.add(fs, name, short, "", usage, func(p *filterPair, v string) error {
			if v == "" || strings.Contains(v, "/") {
				return fmt.Errorf("%q is not a namespace", v)
			}
			*list(p) = append(*list(p), v)
			return nil
		})
	}
	add("from-namespace", "", "flows from a namespace", func(p *filterPair) *[]string { return &p.fromSpaces })
	add("to-namespace", "", "flows to a namespace", func(p *filterPair) *[]string { return &p.toSpaces })
	add("namespace", "n", "flows from or to a namespace", func(p *filterPair) *[]string { return &p.either })
}

func put[T any](source, destination *[]T, isSource bool, v T) error {
	if isSource {
		destination = source
	}
	*destination = append(*destination, v)
	return nil
}

func isAddress(s string) bool {
	if strings.Contains(s, "/") {
		_, err := netip.ParsePrefix(s)
		return err == nil
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// addBoth declares a flag that says the same of both filters of a pair.
func (s *filterFlags) addBoth(fs *pflag.FlagSet, name, short, alone, usage string, change func(*flowpb.FlowFilter, string) error) {
	s.add(fs, name, short, alone, usage, func(p *filterPair, v string) error {
		if err := change(&p.left, v); err != nil {
			return err
		}
		return change(&p.right, v)
	})
}

func (s *filterFlags) addEvents(fs *pflag.FlagSet) {
	s.addBoth(fs, "type", "t", "", "events of a type: drop, l7, policy-verdict, trace, or TYPE:SUBTYPE", addType)
	s.addBoth(fs, "verdict", "", "", "FORWARDED, DROPPED, REDIRECTED, AUDIT or ERROR", func(f *flowpb.FlowFilter, v string) error {
		n, ok := flowpb.Verdict_value[strings.ToUpper(v)]
		if !ok || n == 0 {
			return fmt.Errorf("%q is not one of FORWARDED, DROPPED, REDIRECTED, AUDIT, ERROR", v)
		}
		f.Verdict = append(f.Verdict, flowpb.Verdict(n))
		return nil
	})
	s.addBoth(fs, "drop-reason-desc", "", "", "drops for a reason: POLICY_DENIED, PROXY_DOWN, …", func(f *flowpb.FlowFilter, v string) error {
		r, ok := observe.ParseDropReason(v)
		if !ok {
			return fmt.Errorf("%q is not a drop reason", v)
		}
		f.DropReasonDesc = append(f.DropReasonDesc, r.Desc())
		return nil
	})
	s.addBoth(fs, "traffic-direction", "", "", "ingress or egress", addDirection)
	s.addBoth(fs, "protocol", "", "", "tcp, udp, sctp, icmp, icmpv4, icmpv6, http, dns, kafka, tls", func(f *flowpb.FlowFilter, v string) error {
		f.Protocol = append(f.Protocol, v)
		return nil
	})
	s.addBoth(fs, "tcp-flags", "", "", "TCP packets with these flags: syn,ack", addTCPFlags)
	s.addVersions(fs)
	s.addReply(fs)
	s.addBoth(fs, "node-name", "", "", "flows of nodes whose name matches: k8s*, CLUSTER/NODE", func(f *flowpb.FlowFilter, v string) error {
		f.NodeName = append(f.NodeName, v)
		return nil
	})
	s.addBoth(fs, "uuid", "", "", "the one flow with this id", func(f *flowpb.FlowFilter, v string) error {
		f.Uuid = append(f.Uuid, v)
		return nil
	})
}

func (s *filterFlags) addVersions(fs *pflag.FlagSet) {
	add := func(name, short string, v flowpb.IPVersion) {
		s.addBoth(fs, name, short, "true", v.String()+" only", func(f *flowpb.FlowFilter, _ string) error {
			f.IpVersion = append(f.IpVersion, v)
			return nil
		})
	}
	add("ipv4", "4", flowpb.IPVersion_IPv4)
	add("ipv6", "6", flowpb.IPVersion_IPv6)
}

func (s *filterFlags) addReply(fs *pflag.FlagSet) {
	add := func(name, usage string, reply bool) {
		s.addBoth(fs, name, "", "true", usage, func(f *flowpb.FlowFilter, _ string) error {
			f.Reply = append(f.Reply, reply)
			return nil
		})
	}
	add("reply", "replies only", true)
	add("not-reply", "no replies", false)
}

func (s *filterFlags) addHTTP(fs *pflag.FlagSet) {
	add := func(name, usage string, list func(*flowpb.FlowFilter) *[]string) {
		s.addBoth(fs, name, "", "", usage, func(f *flowpb.FlowFilter, v string) error {
			*list(f) = append(*list(f), v)
			return nil
		})
	}
	add("http-method", "requests with this method", func(f *flowpb.FlowFilter) *[]string { return &f.HttpMethod })
	add("http-path", "requests whose path matches this expression", func(f *flowpb.FlowFilter) *[]string { return &f.HttpPath })
	add("http-url", "requests whose URL matches this expression", func(f *flowpb.FlowFilter) *[]string { return &f.HttpUrl })
	add("http-status", "answers with this status: 404, 5+", func(f *flowpb.FlowFilter) *[]string { return &f.HttpStatusCode })
	s.addBoth(fs, "http-header", "", "", "requests with this header: NAME:VALUE", func(f *flowpb.FlowFilter, v string) error {
		name, value, ok := strings.Cut(v, ":")
		if !ok || name == "" {
			return fmt.Errorf("%q is not NAME:VALUE", v)
		}
		f.HttpHeader = append(f.HttpHeader, &flowpb.HTTPHeader{Key: name, Value: strings.TrimLeft(value, " ")})
		return nil
	})
}
