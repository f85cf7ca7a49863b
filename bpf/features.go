package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
)

// ProbeFeatures tries, one by one, what the datapath is made of, so that a kernel
// that does not take it as a whole says which part it lacks.
func ProbeFeatures() []Need {
	out := []Need{
		{Name: "memory for maps may be locked", Err: rlimit.RemoveMemlock(), Hint: "raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit"},
		{Name: "the kernel describes its types (BTF)", Err: kernelTypes(), Hint: "build the kernel with CONFIG_DEBUG_INFO_BTF"},
	}
	for _, m := range []struct {
		t    ebpf.MapType
		name string
	}{{ebpf.LPMTrie, "longest prefix maps (LPM)"}, {ebpf.RingBuf, "ring buffers"}, {ebpf.LRUHash, "maps that evict (LRU)"}, {ebpf.PerCPUArray, "maps by processor"}} {
		out = append(out, Need{Name: m.name, Err: features.HaveMapType(m.t), Hint: "Linux 6.6 or newer with CONFIG_BPF_SYSCALL"})
	}
	for _, h := range []struct {
		f    asm.BuiltinFunc
		name string
	}{{asm.FnRedirectPeer, "bpf_redirect_peer"}, {asm.FnSkAssign, "bpf_sk_assign"}, {asm.FnSkcLookupTcp, "bpf_skc_lookup_tcp"}, {asm.FnFibLookup, "bpf_fib_lookup"}, {asm.FnCloneRedirect, "bpf_clone_redirect"}} {
		out = append(out, Need{Name: h.name, Err: features.HaveProgramHelper(ebpf.SchedCLS, h.f), Hint: "Linux 6.6 or newer with CONFIG_NET_CLS_ACT and CONFIG_INET"})
	}
	return out
}

func kernelTypes() error {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's types: %w", err)
	}
	var f *btf.Func
	if err := spec.TypeByName("bpf_map_sum_elem_count", &f); err != nil {
		return fmt.Errorf("find bpf_map_sum_elem_count: %w", err)
	}
	return nil
}
