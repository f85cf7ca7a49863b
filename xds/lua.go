package xds

import (
	_ "embed"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// script is the same for all; what it does with a request, the route says. Values of
// secrets are in there as in the rules of the RBAC filters: in the memory of agent and
// Envoy, and on a socket that is theirs alone.
//
//go:embed script.lua
var script string

func scriptOf() *luav3.Lua {
	return &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: script}},
		SharedVmId:        "headgate", // one for all listeners, or each of their filters had its own
	}
}

// perScript is what one instance of the script is to do; nothing: it does not run.
func (b *builder) perScript(todo map[string]any) *anypb.Any {
	if len(todo) == 0 {
		return b.pack(&luav3.LuaPerRoute{Override: &luav3.LuaPerRoute_Disabled{Disabled: true}})
	}
	context, err := structpb.NewStruct(todo)
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("tell Envoy's script what to do: %w", err)
	}
	return b.pack(&luav3.LuaPerRoute{FilterContext: context})
}

// The three places of the script: before the egress rules, between them and the ingress
// rules, and behind these.
const (
	firstScript  = "headgate.first"
	middleScript = "headgate.middle"
	lastScript   = "headgate.last"
)

// chores is what the script has to do in its places, and more of some requests: remember
// the head of what may become a tunnel, or last; have the request be the last of its connection to
// the server, or of the client's.
func chores(egress, ingress *program, more string) map[string]map[string]any {
	todo := map[string]map[string]any{firstScript: {}, middleScript: {}, lastScript: {}}
	for _, end := range []struct {
		direction     string
		program       *program
		before, after string
	}{{egressWord, egress, firstScript, middleScript}, {ingressWord, ingress, middleScript, lastScript}} {
		if end.program == nil {
			continue
		}
		if end.program.deny != nil || end.program.shadowDeny != nil {
			todo[end.before]["read"] = true
		}
		if len(end.program.edits) > 0 {
			todo[end.after]["edits"], todo[end.after]["direction"] = end.program.edits, end.direction
		}
		if end.program.response != nil {
			todo[firstScript]["answers"], todo[firstScript][end.direction] = true, end.program.response
		}
	}
	if byHeaders(egress) || byHeaders(ingress) {
		todo[firstScript]["remember"] = true
	}
	switch more {
	case "remember", "close":
		todo[firstScript][more] = true
	case "last":
		todo[lastScript][more] = true
	}
	return todo
}
