package observe

import (
	"fmt"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// mask is a tree of the fields that a client wants; a nil branch wants all below.
// The nil mask wants everything.
type mask map[protoreflect.Name]mask

func newMask(fm *fieldmaskpb.FieldMask) (mask, error) {
	if len(fm.GetPaths()) == 0 {
		return nil, nil
	}
	if !fm.IsValid(&flowpb.Flow{}) {
		return nil, fmt.Errorf("field mask %q names fields that a flow does not have", fm.GetPaths())
	}
	fm.Normalize()
	m := make(mask)
	for _, path := range fm.GetPaths() {
		m.add(path)
	}
	return m, nil
}

func (m mask) add(path string) {
	head, rest, more := strings.Cut(path, ".")
	name := protoreflect.Name(head)
	if !more {
		m[name] = nil
		return
	}
	if m[name] == nil {
		m[name] = make(mask)
	}
	m[name].add(rest)
}

// apply returns the flow itself, or a new one that shares the wanted parts with it.
func (m mask) apply(f *flowpb.Flow) *flowpb.Flow {
	if m == nil {
		return f
	}
	out := new(flowpb.Flow)
	m.copy(out.ProtoReflect(), f.ProtoReflect())
	return out
}

func (m mask) copy(to, from protoreflect.Message) {
	fields := from.Descriptor().Fields()
	for name, below := range m {
		fd := fields.ByName(name)
		switch {
		case !from.Has(fd):
		case below == nil:
			to.Set(fd, from.Get(fd))
		default:
			below.copy(to.Mutable(fd).Message(), from.Get(fd).Message())
		}
	}
}
