package xds

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Two readers could take these for different things. Headgate's own parser refuses them
// (docs/http.md); Envoy passes them on, so routes of their own answer them.

// refusals are the routes of what is refused, whatever rules say. What these filters do has
// the connection end with a 400.
func refusals(closing map[string]*anypb.Any) []*routev3.Route {
	var out []*routev3.Route
	refuse := func(status uint32, path string, headers ...*routev3.HeaderMatcher) {
		var filters map[string]*anypb.Any
		if status == 400 {
			filters = closing
		}
		out = append(out, &routev3.Route{
			TypedPerFilterConfig: filters,
			Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: expression(path).GetSafeRegex()}, Headers: headers,
			},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: status}},
		})
	}
	const any = ".*"
	refuse(400, any, on(":authority", ".*[@,].*")) // a user; several, which Envoy joins
	refuse(400, any, sent("content_length"))       // some servers read _ as -
	refuse(400, any, sent("transfer_encoding"))
	refuse(400, any, append(withContent("content-length"), on(":method", "TRACE"))...)
	refuse(400, any, append(withContent("transfer-encoding"), on(":method", "TRACE"))...)
	refuse(400, ".*%[uU][0-9a-fA-F]{4}.*") // an escape to some servers
	refuse(400, `.*/(?i:\.|%2e){1,2};.*`)  // a dot segment that was left
	refuse(417, any, not100(), sent("expect"))
	return out
}

func on(header, expr string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: header, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: expression(expr)}}
}

func sent(header string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: header, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

func not100() *routev3.HeaderMatcher {
	m := on("expect", "(?i:100-continue)")
	m.InvertMatch = true
	return m
}
