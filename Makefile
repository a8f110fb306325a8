# Warren: what developers and CI run. `make` alone prints this list.
SHELL       := bash
.SHELLFLAGS := -o pipefail -c

GO       ?= go
FUZZTIME ?= 20s
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TARGETS  := linux/amd64 linux/arm64 linux/mipsle windows/amd64 darwin/arm64 freebsd/amd64 openbsd/amd64 android/arm64
MODULE   := github.com/warren-vpn/warren

# What the tests in network namespaces call: command=Debian package.
TEST_TOOLS := ip=iproute2 nft=nftables iperf3=iperf3 ping=iputils-ping tcpdump=tcpdump miniupnpd=miniupnpd-nftables dbus-daemon=dbus

.PHONY: help build check fmt-check vet staticcheck arch deps deps-check cross test test-tools demo-tools fuzz demo natmatrix sim bench microbench gen clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/warren: static, stripped, reproducible
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/warren ./cmd/warren

check: fmt-check vet staticcheck arch deps-check cross ## Everything that needs no test run: format, vet, staticcheck, rules of the tree, dependencies, cross builds

fmt-check:
	@out=$$(gofmt -l $$(find . -name '*.go' -not -path './.*')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(GO) tool staticcheck ./...

arch: ## Check the rules of the tree alone (arch_test.go)
	$(GO) test -count=1 .

# The third-party packages in the Linux binary, one a line: a new dependency is a visible line in a diff.
LIST_DEPS = GOOS=linux GOARCH=amd64 CGO_ENABLED=0 $(GO) list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./cmd/warren | grep -v '^$(MODULE)' | LC_ALL=C sort

deps: ## Write deps.txt anew
	@$(LIST_DEPS) > deps.txt.new && mv deps.txt.new deps.txt
	@echo "deps.txt: $$(wc -l < deps.txt) packages"

deps-check:
	@$(LIST_DEPS) | diff -u deps.txt - || { echo "the dependencies of cmd/warren changed: look at the diff, then run 'make deps' and commit deps.txt"; exit 1; }

cross: ## Build the binary for every platform of the README
	@for t in $(TARGETS); do \
		echo "build $$t"; \
		GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -trimpath -o /dev/null ./cmd/warren || exit 1; \
	done

# What the demo calls.
DEMO_TOOLS := ip=iproute2 nft=nftables ping=iputils-ping

test-tools demo-tools: %-tools:
	@missing=; for t in $(if $(filter demo,$*),$(DEMO_TOOLS),$(TEST_TOOLS)); do command -v $${t%=*} >/dev/null || [ -x /usr/sbin/$${t%=*} ] || missing="$$missing $${t#*=}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	elif [ -n "$$missing" ]; then echo "missing:$$missing (what needs them is skipped, or fails)"; fi

# The race detector needs a C compiler; without one the tests run without it.
RACE  = $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

# Engines whose tests have one goroutine: there is no race to find, and under the detector they take minutes.
ALONE := internal/gossip|internal/route

test: test-tools ## Run all tests: with the race detector where there can be a race, last those in network namespaces (root)
	$(GO) test $(RACE) -timeout 25m $$($(GO) list ./... | grep -vE '/(test/netns|($(ALONE))$$)')
	$(GO) test -timeout 25m $$($(GO) list ./... | grep -E '/($(ALONE))$$')
	$(GO) test -count=1 -timeout 14m -v ./test/netns/...

fuzz: ## Run every fuzz target for FUZZTIME (20s)
	@for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$pkg/*_test.go | cut -d' ' -f2 | sort -u); do \
			echo "$$pkg $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

demo: demo-tools ## Three hosts on one machine, two behind NATs, join a network and talk (root, Linux)
	@test/demo.sh

natmatrix: test-tools ## Try every pair of NATs and firewalls in network namespaces, print the table of docs/NAT.md (root, Linux, 6 minutes or more)
	WARREN_NATMATRIX=$(CURDIR)/bin/natmatrix.md $(GO) test -count=1 -timeout 60m -run '^TestMatrix$$' ./test/natmatrix; status=$$?; cat bin/natmatrix.md; exit $$status

sim: ## Simulate SIM=1000 members in virtual time: convergence, bytes, memory, invariants; STEPS=3: the first steps alone (docs/SCALE.md says how long it takes)
	$(GO) test -count=1 -v -timeout 6h -run '^TestByHand$$' ./test/sim -nodes $(or $(SIM),1000) -steps $(or $(STEPS),0)

bench: ## Measure Warren against wireguard-go in network namespaces (root, Linux); BENCHFLAGS='-rounds 3 -time 3s'
	$(GO) run ./bench $(BENCHFLAGS)

microbench: ## Run the benchmarks of the hot paths: seal, open, segment, join, replay, lookup
	$(GO) test -run '^$$' -bench . -benchmem ./internal/wireguard ./internal/packet ./internal/dataplane ./internal/route ./internal/udp ./internal/path

gen: ## Write generated files anew: go generate, spec/vectors
	$(GO) generate ./...
	@for pkg in $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -rn1 dirname | sort -u); do $(GO) test -count=1 $$pkg -update || exit 1; done

clean: ## Remove what build made
	rm -rf bin deps.txt.new
