# Everything that is done with the repository. "make" alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO ?= go
BINARY := bin/sluice

# The linters; go fetches and builds them at these versions.
GOFUMPT := $(GO) run mvdan.cc/gofumpt@v0.12.0
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What "sluice --version" says. Outside of a git checkout, such as in an image build,
# the caller gives them.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH ?= $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
# The date of the commit and not of the build, so that the same sources make the same
# program.
BUILD_DATE ?= $(shell TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y%m%d-%H:%M:%S 2>/dev/null || echo unknown)

INFO := github.com/prometheus/common/version
LDFLAGS := -s -w -X $(INFO).Version=$(VERSION) -X $(INFO).Revision=$(REVISION) -X $(INFO).Branch=$(BRANCH) -X $(INFO).BuildDate=$(BUILD_DATE)

# go test: packages at a time, and the limit of each. The end-to-end tests wait for real
# programs much of the time; they run alone, so that their time limits mean something.
TEST_FLAGS ?= -p 2 -timeout 10m
E2E_FLAGS ?= -timeout 20m -parallel 5
# With the tag debug, memory that was given back is overwritten, so that a reader that
# comes too late finds rubbish.
RACE_FLAGS ?= -race -tags debug -p 2 -timeout 20m
FUZZTIME ?= 20s
BENCHTIME ?= 1s
IMAGE ?= sluice:$(VERSION)

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build ## Run Sluice without a configuration: 127.0.0.1:9201, data in ./data.
	$(BINARY) $(ARGS)

.PHONY: build
build: ## Build bin/sluice, static.
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) ./cmd/adapter

.PHONY: test-deps
test-deps: ## Fetch the real programs that the tests run against, into .tools.
	scripts/install-test-programs

.PHONY: test
test: test-deps ## Run go vet and all tests.
	$(GO) vet ./...
	$(GO) test $(TEST_FLAGS) $$($(GO) list ./... | grep -v '/e2e$$')
	$(GO) test $(E2E_FLAGS) ./e2e

.PHONY: race
race: test-deps ## Run all tests with the race detector and the tag debug. Needs a C compiler.
	$(GO) test $(RACE_FLAGS) $$($(GO) list ./... | grep -v '/e2e$$')
	SLUICE_TEST_RACE=1 $(GO) test -race $(E2E_FLAGS) ./e2e

.PHONY: lint
lint: ## Check formatting (gofumpt), go vet, staticcheck.
	@unformatted=$$($(GOFUMPT) -l .); \
	if [ -n "$$unformatted" ]; then \
		printf 'not formatted; "make format" does it:\n%s\n' "$$unformatted"; \
		exit 1; \
	fi
	$(GO) vet ./...
	$(GO) vet -tags debug ./...
	$(STATICCHECK) ./...

.PHONY: format
format: ## Format all Go files.
	$(GOFUMPT) -w .

.PHONY: generate
generate: ## Write the generated pages, docs/config.md and docs/metrics.md, anew.
	$(GO) generate ./config ./dashboards ./alerts
	SLUICE_WRITE_DOCS=1 $(GO) test ./docs -count=1 -run TestMetricsPage

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s).
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n 1 dirname | sort -u | while read -r package; do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$$package"/*_test.go | cut -c 6-); do \
			echo "== $$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
		done; \
	done

.PHONY: bench
bench: ## Run all benchmarks into bench/<package>.txt; see bench/README.md.
	@grep -rlE '^func Benchmark' --include='*_test.go' . | xargs -n 1 dirname | sort -u | while read -r package; do \
		file=bench/$$(echo "$${package#./}" | tr / -).txt; \
		echo "== $$package -> $$file"; \
		$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count 3 -timeout 30m "$$package" </dev/null | tee "$$file"; \
	done

.PHONY: image
image: ## Build the container image.
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg BRANCH=$(BRANCH) --build-arg BUILD_DATE=$(BUILD_DATE) -t $(IMAGE) .

.PHONY: clean
clean: ## Remove what was built. Data and fetched programs stay.
	rm -rf bin
