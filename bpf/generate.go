package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -output-stem gate -type addr -type config -type device -type endpoint -type ipcache_key -type ipcache_entry -type subject -type policy_key -type policy_entry -type route_key -type route -type ct_key -type ct_entry -type nat_key -type nat_hold -type counter -type event -type usage -type open_port gate src/gate.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu
