# SPDX-License-Identifier: Apache-2.0
#
# What CI runs is what you run: .ci/run is `make test`.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Root is needed to install packages and for the tests that load programs and
# make network namespaces.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
FUZZTIME ?= 10s
VERSION ?=
LDFLAGS := $(if $(VERSION),-X lvx/internal/cli.version=$(VERSION))
BENCH := $(SUDO) bin/bench $(if $(JSON),-json) $(if $(RUN),-run '$(RUN)')
LINT := go tool -modfile=tools/golangci/go.mod golangci-lint
C_FILES := $(wildcard bpf/*.c bpf/*.h test/bench/bpf/*.c test/bench/bpf/*.h)
PACKAGES := ca-certificates clang-19 clang-format-19 cpio curl ethtool gcc git iproute2 libc6-dev linux-libc-dev llvm-19 nftables \
	nginx-light openssl qemu-system-x86 systemd tcpdump

.NOTPARALLEL:
.PHONY: help build generate check check-generated lint test test-unit test-root test-kernel demo bench bench-quick bench-go stress fuzz fmt deps clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/lvx, one static program, and its names as ipvsadm (needs Go alone)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/lvx ./cmd/lvx
	@for name in ipvsadm ipvsadm-save ipvsadm-restore; do ln -sf lvx bin/$$name; done

generate: ## compile bpf/ and write the Go that mirrors it (clang 19)
	go generate ./...

check: check-generated lint ## everything that is judged without running: generated files, format, lint, the house

# Compares the tree before and after, not with a commit: work in progress is no
# difference, a stale generated file is.
check-generated:
	@tree() { find . -type f -not -path './.git/*' -not -path './bin/*' -print0 | sort -z | xargs -0 sha256sum; }; \
	set -e; before=$$(tree); $(MAKE) --no-print-directory generate; after=$$(tree); \
	diff <(echo "$$before") <(echo "$$after") >/dev/null || { \
		echo 'generated files were stale (now they are written; commit them):'; \
		diff <(echo "$$before") <(echo "$$after") | sed -n 's/^> [0-9a-f]*  /  /p'; exit 1; }

lint:
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not formatted, run make fmt: $$files"; exit 1; }
	$(if $(C_FILES),clang-format-19 --dry-run -Werror $(C_FILES))
	@! grep -n 'bpf_printk' $(C_FILES) /dev/null || { echo 'take bpf_printk out'; exit 1; }
	go vet ./...
	$(LINT) run ./...
	go test -count=1 .

test: deps check test-unit test-root test-kernel ## all tests (this is what CI runs; installs what is missing)

# -short leaves out what needs root, programs in the kernel or a lab.
test-unit:
	go test -race -short ./...

test-root: build ## the tests that load programs into the kernel and make network namespaces
	$(SUDO) env "PATH=$$PATH" go test -count=1 -p 1 -timeout 30m ./...

test-kernel: ## the packet tests on Debian's 6.1 kernel, in an emulated machine
	$(SUDO) env "PATH=$$PATH" test/kernel/run.sh

demo: build ## real requests through a real director, on this machine, in namespaces
	@$(MAKE) --no-print-directory deps PACKAGES='ca-certificates curl'
	$(SUDO) bin/lvx lab demo --method dr --family 4
	$(SUDO) bin/lvx lab demo --method dr --family 6
	$(SUDO) bin/lvx lab demo --method nat
	$(SUDO) bin/lvx lab demo --method tun

# With JSON=1 nothing but JSON is written to stdout. RUN is a regular expression of cases.
bench: ## what a packet costs, next to other programs: see docs/performance.md (takes minutes)
	@go build -o bin/bench ./test/bench
	@$(BENCH) $(if $(INTO),-into $(INTO))

bench-quick: ## the ratios that matter, in less than a minute
	@go build -o bin/bench ./test/bench
	@$(BENCH) -quick

bench-go: build ## Go's own benchmarks: packets, connections and changes per second
	$(SUDO) env "PATH=$$PATH" go test -run '^$$' -bench . -benchmem ./...

stress: build ## the connection table's hard tests, at full length (minutes)
	$(SUDO) env "PATH=$$PATH" LVX_SEEDS=1000 LVX_FLOOD=full go test -count=1 -timeout 30m -run 'TestTwoProcessors|TestCounts|TestFlood|TestConnectionsFollow' ./internal/dataplane

fuzz: ## each fuzz target for FUZZTIME (10s)
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n 1 dirname | sort -u | while read -r dir; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "$$dir $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir </dev/null; \
		done; \
	done

fmt: ## format Go and C
	gofmt -w $$(find . -name '*.go' -not -path './.git/*')
	$(if $(C_FILES),clang-format-19 -i $(C_FILES))

deps: ## install the Debian packages that the tests need, if any is missing
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { set -x; $(SUDO) apt-get update -q && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; }

clean: ## remove what was built and Go's cached test results
	rm -rf bin
	go clean -testcache
