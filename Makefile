# Every target installs what it needs first and is quick the second time. `make help` lists them.
SHELL := /bin/bash
NODE := node_modules/.bin/node --disable-warning=ExperimentalWarning
TS := $(wildcard *.ts */*.ts */*/*.ts */*/*/*.ts */*/*/*/*.ts)
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help setup build check test conformance demo bench proto clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Standard output is for results: `make demo ONCE=1 | jq` must work the first time too.
setup:
	@bin/setup >&2

build: setup build/cni/heddle-cni build/bpf/heddle.bpf.o ## build the CNI plugin and the eBPF objects

build/cni/heddle-cni: $(wildcard cni/*.go) cni/go.mod
	@echo "build: cni plugin" >&2
	@mkdir -p $(@D)
	@cd cni && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o ../$@ .

build/cni-reference/bin/cnitool: test/cni-reference/go.mod test/cni-reference/go.sum
	@echo "build: reference CNI plugins and cnitool" >&2
	@cd test/cni-reference && GOBIN=$(CURDIR)/$(@D) CGO_ENABLED=0 go install -trimpath -buildvcs=false -ldflags '-s -w' tool
	@touch $@

CONFORMANCE_PROGRAMS := $(addprefix build/conformance/,h2spec grpc-interop-client grpc-interop-server)
CONFORMANCE := $(CONFORMANCE_PROGRAMS) build/conformance/python.stamp

$(CONFORMANCE_PROGRAMS) &: test/conformance/tools/go.mod test/conformance/tools/go.sum
	@echo "build: conformance programs" >&2
	@mkdir -p build/conformance
	@cd test/conformance/tools && export CGO_ENABLED=0 && \
	 build() { go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$(CURDIR)/build/conformance/$$1" "$$2"; } && \
	 build h2spec github.com/summerwind/h2spec/cmd/h2spec && \
	 build grpc-interop-client google.golang.org/grpc/interop/client && \
	 build grpc-interop-server google.golang.org/grpc/interop/server
	@touch $(CONFORMANCE_PROGRAMS)

# Debian's own Python: another one on the path may have no pip.
build/conformance/python.stamp: test/conformance/tls/requirements.txt
	@echo "build: Python packages of the conformance tests" >&2
	@mkdir -p $(@D) && rm -rf $(@D)/python
	@/usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
	 --require-hashes --target $(@D)/python -r $<
	@touch $@

build/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h bpf/*.bpf.c)
	@echo "build: $@" >&2
	@mkdir -p $(@D)
	@clang -O2 -g -target bpf -mcpu=v3 -Wall -Werror -I/usr/include/$(shell gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu) -c $< -o $@

check: build ## format, lint, types, layers, go vet, eBPF compile, every main.ts under real Node
	@$(NODE) test/run.ts check

test: build build/cni-reference/bin/cnitool $(CONFORMANCE) ## everything: check, unit tests, and the tests that need the kernel
	@$(NODE) test/run.ts all

conformance: build $(CONFORMANCE) ## HTTP/2, gRPC, HTTP/1, TLS and WebSocket by other people's programs (JSON=1 prints the counts alone)
	@$(NODE) test/conformance/run.ts $(if $(JSON),--json)

demo: build build/cni-reference/bin/cnitool ## the main job: real pods, meshed, with a live table (ONCE=1 prints one JSON document)
	@$(NODE) demo/main.ts $(if $(ONCE),--once)

bench: build build/cni-reference/bin/cnitool ## benchmarks beside peers: SUITE=node|peers|scale, JSON=1 for rows, ARGS='--rounds 1'
	@bin/setup bench >&2
	@$(NODE) bench/main.ts $(or $(SUITE),node) $(if $(JSON),--json) $(ARGS)

proto: setup ## regenerate api/gen from api/proto (needs Debian's protobuf-compiler and libprotobuf-dev)
	@api/proto/generate

clean: ## remove what was built
	rm -rf build
