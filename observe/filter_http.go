package observe

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

func compileHTTPField(name string, ff *flowpb.FlowFilter) (Filter, error) {
	if types := ff.GetEventType(); len(types) > 0 && !slices.ContainsFunc(types, wantsL7) {
		return nil, errors.New("only events of type l7 have it, and event_type asks for others")
	}
	switch name {
	case "http_status_code":
		return statusFilter(ff.GetHttpStatusCode())
	case "http_method":
		return methodFilter(ff.GetHttpMethod()), nil
	case "http_path":
		return regexFilter(ff.GetHttpPath(), httpPath)
	case "http_url":
		return regexFilter(ff.GetHttpUrl(), func(f *flowpb.Flow) (string, bool) {
			u := f.GetL7().GetHttp().GetUrl()
			return u, u != ""
		})
	}
	return headerFilter(ff.GetHttpHeader()), nil
}

func wantsL7(t *flowpb.EventTypeFilter) bool { return t.GetType() == EventL7 || t.GetType() == 0 }

// statusFilter takes whole codes and prefixes: "404", "40+", "5+".
func statusFilter(list []string) (Filter, error) {
	form := regexp.MustCompile(`^[1-5]([0-9]?\+|[0-9]{2})$`)
	for _, s := range list {
		if !form.MatchString(s) {
			return nil, fmt.Errorf(`status %q is neither a code ("404") nor a prefix ("5+")`, s)
		}
	}
	return func(f *flowpb.Flow) bool {
		code := f.GetL7().GetHttp().GetCode()
		if code == 0 {
			return false
		}
		have := strconv.FormatUint(uint64(code), 10)
		return slices.ContainsFunc(list, func(w string) bool {
			prefix, ok := strings.CutSuffix(w, "+")
			return w == have || ok && strings.HasPrefix(have, prefix)
		})
	}, nil
}

func methodFilter(list []string) Filter {
	return func(f *flowpb.Flow) bool {
		m := f.GetL7().GetHttp().GetMethod()
		return m != "" && slices.ContainsFunc(list, func(w string) bool { return strings.EqualFold(w, m) })
	}
}

func headerFilter(list []*flowpb.HTTPHeader) Filter {
	return func(f *flowpb.Flow) bool {
		for _, h := range f.GetL7().GetHttp().GetHeaders() {
			if slices.ContainsFunc(list, func(w *flowpb.HTTPHeader) bool {
				return strings.EqualFold(w.GetKey(), h.GetKey()) && w.GetValue() == h.GetValue()
			}) {
				return true
			}
		}
		return false
	}
}

// regexFilter wants one of the expressions to match somewhere in the value.
func regexFilter(list []string, value func(*flowpb.Flow) (string, bool)) (Filter, error) {
	expressions := make([]*regexp.Regexp, 0, len(list))
	for _, s := range list {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, fmt.Errorf("parse expression: %w", err)
		}
		expressions = append(expressions, re)
	}
	return func(f *flowpb.Flow) bool {
		v, ok := value(f)
		return ok && slices.ContainsFunc(expressions, func(re *regexp.Regexp) bool { return re.MatchString(v) })
	}, nil
}

// httpPath is the path without query, decoded as Hubble has it; what is no URL is
// taken apart as it stands, so that odd requests can be found too.
func httpPath(f *flowpb.Flow) (string, bool) {
	raw := f.GetL7().GetHttp().GetUrl()
	if raw == "" {
		return "", false
	}
	if u, err := url.ParseRequestURI(raw); err == nil {
		return u.Path, true
	}
	if _, rest, ok := strings.Cut(raw, "://"); ok {
		_, path, _ := strings.Cut(rest, "/")
		raw = "/" + path
	}
	path, _, _ := strings.Cut(raw, "?")
	return path, true
}
