# What a person or CI runs. Everything that a target needs, it installs or builds.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# Where what takes long to build is kept: Kubernetes, the linter. Override it to keep it elsewhere.
export MAYFLY_CACHE ?= $(HOME)/.cache/mayfly
# Where the cluster of cluster-up lies, with all that it writes.
export MAYFLY_CLUSTER ?= /var/tmp/mayfly-cluster
# What make e2e and make cluster-up run Mayfly on, where it is not the usual: KUBERNETES=1.35, CERT_MANAGER=1.20, CONTAINERD=2.
export MAYFLY_KUBERNETES := $(KUBERNETES)
export MAYFLY_CERT_MANAGER := $(CERT_MANAGER)
export MAYFLY_CONTAINERD := $(CONTAINERD)
# Where the modules of the repository are: the product's, and one for each tool that it should not depend on.
MODULES := . tools/release $(patsubst %/go.mod,%,$(wildcard test/*/go.mod test/*/*/go.mod))

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME ?= 10s
# How many runs of chaos, the seed of the first one, and how long each is.
SEEDS ?= 3
SEED ?= 1
STEPS ?= 600
# More flags for every go test, such as -v.
TESTFLAGS ?=
# What the cluster for tests runs with, from Debian; the rest is built from Go modules.
PACKAGES := buildah busybox-static containerd containernetworking-plugins e2fsprogs iproute2 jq procps runc runit systemd util-linux \
	$(if $(CONTAINERD),gcc libc6-dev libseccomp-dev pkg-config)
# Programs that read the files of a volume.
CONSUMERS := haproxy iproute2 libtomcat10-java nginx-light openjdk-17-jre-headless openssl postgresql-15 tomcat10-common util-linux
# Installs packages that are missing, one make at a time. No other package is removed for them.
install = ( flock 9; [ "$$(dpkg-query --show --showformat '$${db:Status-Status}\n' $(1) 2>/dev/null | grep --count '^installed$$')" = $(words $(1)) ] || \
	{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends --no-remove $(1); } >&2 9>&- ) 9>/var/lock/mayfly-packages
# The parts of the test suite, in the order in which they begin. Two run at a time: the stories wait more than they work.
PARTS := stories unit load chaos integration consumers chart packaging life fuzz sanity demo

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/mayfly and bin/mayfly-controller, static binaries
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/ ./cmd/mayfly ./cmd/mayfly-controller

.PHONY: run
run: build ## certificates that rotate, with the embedded CA: no Kubernetes needed
	cd test/demo && go build -o ../../bin/demo .
	bin/demo --mayfly bin/mayfly

.PHONY: test
test: packages build kubernetes ## everything, up to pods on a real Kubernetes
	@$(call install,$(CONSUMERS))
	cd test/run && go run . --dir ../.. $(PARTS)

# The slowest package comes first, and its tests wait more than they work: others run beside them. Without DWARF a binary is linked in half the time.
.PHONY: unit
unit: ## the quick loop: no cluster
	@$(call install,e2fsprogs)
	go test $(TESTFLAGS) -race -ldflags=-w -p 4 -parallel 32 $$(go list ./driver ./... | grep -v /test/) ./test/httpca
	cd test/run && go test $(TESTFLAGS) -race ./...

.PHONY: load
load: ## the node plugin with many volumes that rotate all the time, and its queue with issuers in trouble
	go test $(TESTFLAGS) -race ./test/load

.PHONY: chaos
chaos: ## the node plugin among faults of every kind, for SEEDS times STEPS steps from SEED; needs root
	go test $(TESTFLAGS) -race -count=1 -timeout 6h ./test/chaos/... -seed $(SEED) -seeds $(SEEDS) -steps $(STEPS)

.PHONY: integration
integration: build packages kubernetes ## the node plugin against a real kube-apiserver and cert-manager's controllers
	cd test/cluster && go test $(TESTFLAGS) -race -count=1 -timeout 40m ./...

.PHONY: attack
attack: build packages kubernetes ## mayfly-controller under attack, with 10,000 requests by a stolen token instead of the 800 of integration; pods that start meanwhile
	cd test/cluster && go test $(TESTFLAGS) -race -count=1 -timeout 20m -run '^TestUnderAttack$$' . -thief 10000
	cd test/e2e && go run ./cost --dir $(MAYFLY_CLUSTER) --attacks 6

# The life of a release goes through all modes, which an older Kubernetes does not have.
.PHONY: e2e
e2e: stories $(if $(filter-out 1.37,$(KUBERNETES)),,life) ## stories and life; KUBERNETES=1.35 CERT_MANAGER=1.20 CONTAINERD=2: on those

.PHONY: stories
stories: packages kubernetes ## stories of pods on a real Kubernetes: the one of cluster-up, or one of their own
	cd test/e2e && go test $(TESTFLAGS) -race -count=1 -timeout 60m -parallel 16 -skip '^TestLife$$' . ./hour

.PHONY: life
life: packages kubernetes ## stories of a release, by Helm and kubectl: install, change, upgrade, remove; on such a cluster, too
	cd test/e2e && go test $(TESTFLAGS) -race -count=1 -timeout 20m -parallel 16 -run '^TestLife$$' .

.PHONY: cluster-up
cluster-up: packages kubernetes ## a Kubernetes with two nodes, cert-manager and Mayfly on this machine; again: Mayfly as it is now
	cd test/cluster && go run ./cmd/cluster up --dir $(MAYFLY_CLUSTER)

.PHONY: cluster-down
cluster-down: ## end that cluster; nothing is left
	cd test/cluster && go run ./cmd/cluster down --dir $(MAYFLY_CLUSTER)

.PHONY: kubernetes
kubernetes: ## build what test clusters run: some 10 minutes where nothing is cached
	@cd test/cluster && go run ./cmd/cluster build

.PHONY: packages
packages:
	@$(call install,$(PACKAGES))

.PHONY: consumers
consumers: build ## real programs that read the files of a volume: the examples, as they are
	@$(call install,$(CONSUMERS))
	cd test/consumers && go test $(TESTFLAGS) -race -count=1 -parallel 16 ./...
	cd test/consumers/istio && go test $(TESTFLAGS) -race -count=1 .

.PHONY: chart
chart: ## the Helm chart, with Helm's own code: lint, every value, and the install files that are rendered from it
	cd test/chart && go test $(TESTFLAGS) -race -count=1 ./...

.PHONY: packaging
packaging: licences ## a release from two clones, for this machine's platform: the same bytes, and what they hold
	cd tools/release && go test $(TESTFLAGS) -race -count=1 ./...

.PHONY: sanity
sanity: build ## csi-sanity against the binary
	cd test/sanity && go test $(TESTFLAGS) -race -count=1 ./...

.PHONY: demo
demo: build ## what make run shows, for a few seconds and without a terminal
	cd test/demo && go test $(TESTFLAGS) -race -count=1 ./...

# At the end of its time a fuzz target may fail with nothing found (golang.org/issue/75804, mended in Go 1.27).
fuzz-ended = { grep --quiet '^ *context deadline exceeded$$' "$$out" && ! grep --quiet 'Failing input' "$$out"; }

.PHONY: fuzz
fuzz: ## each parser for FUZZTIME
	@grep --recursive --include='*_test.go' --exclude-dir=test --only-matching '^func Fuzz[A-Za-z]*' . | \
	sed --regexp-extended 's|/[^/]*:func | |' | sort | \
	while read -r package target; do \
		echo "$$package $$target"; \
		out=$$(mktemp); \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package" </dev/null | tee "$$out" || $(fuzz-ended) || exit 1; \
		rm "$$out"; \
	done

.PHONY: bench
bench: bench-quick ## the numbers of docs/benchmarks.md, as tables, JSON and an SVG
	cd test/e2e && go run ./cost --dir $(MAYFLY_CLUSTER) --json ../../docs/pods.json
	cd test/e2e && go run ./modes --dir $(MAYFLY_CLUSTER) --json ../../docs/modes.json

.PHONY: bench-quick
bench-quick: build packages kubernetes ## those of the node plugin alone, in three minutes: they go into docs/benchmarks.md
	cd test/bench && go run . --mayfly ../../bin/mayfly \
		--json ../../docs/benchmarks.json --svg ../../docs/benchmarks.svg --document ../../docs/benchmarks.md

.PHONY: hour
hour: packages kubernetes ## 300 volumes beside issuers that are slow or fall silent, for an hour: fails if the healthy one's are late
	cd test/e2e && go run ./hour --dir $(MAYFLY_CLUSTER)

.PHONY: profile
profile: ## where CPU, memory and waits of node plugin and controller go: their top rows, and files in out/profile
	cd test/bench && go run ./profile --out ../../out/profile

controller-gen := go tool -modfile=$(CURDIR)/tools/go.mod controller-gen
helm-docs := go tool -modfile=$(CURDIR)/tools/chart/go.mod helm-docs
# What is generated: from the types of the API, and from the chart.
GENERATED := $(wildcard $(addprefix manifests/,*.yaml authority/*.yaml controller/*.yaml modes/*/*.yaml options/*.yaml options/*/*.yaml drop-in/*.yaml \
	chart/README.md chart/values.schema.json chart/files/*)) signer/controller/policy/v1alpha1/zz_generated.deepcopy.go

.PHONY: generate
generate: ## the CRD, the copies of its types, and what comes from the chart: install files, its README and schema
	$(controller-gen) object paths=./signer/controller/policy/v1alpha1
	$(controller-gen) crd paths=./signer/controller/policy/v1alpha1 output:crd:stdout >manifests/chart/files/crd.yaml
	cd test/chart && go run ./generate
	$(helm-docs) --log-level warning --chart-search-root manifests/chart --sort-values-order file

.PHONY: generated
generated:
	@before=$$(sha256sum $(GENERATED)); $(MAKE) generate; [ "$$(sha256sum $(GENERATED))" = "$$before" ] || { echo "make generate has changed files" >&2; exit 1; }

release-tool := go tool -modfile=$(CURDIR)/tools/release/go.mod

.PHONY: lint
lint: generated ## gofmt, go vet, golangci-lint and go mod tidy in every module, actionlint; what is generated is up to date
	@for module in $(MODULES); do \
		echo "lint $$module"; \
		(cd $$module && go mod tidy -diff && go tool -modfile=$(CURDIR)/tools/go.mod golangci-lint run --config $(CURDIR)/.golangci.yml ./...); \
	done
	@$(release-tool) actionlint -shellcheck= .github/workflows/*.yaml

.PHONY: image
image: ## the container images from the Dockerfile, by buildah
	@command -v buildah >/dev/null || { apt-get update -q && apt-get install -qy --no-install-recommends buildah; }
	buildah --storage-driver vfs bud --isolation chroot -t mayfly:$(VERSION) .
	buildah --storage-driver vfs bud --isolation chroot --target controller -t mayfly-controller:$(VERSION) .

# Whether a release leaves out changes of the checkout that no commit has. Else it refuses them.
IGNORE_CHANGES ?= false

.PHONY: release
release: ## images, chart, licences, SBOM, provenance and checksums of VERSION=0.1.0 in out/release: the same bytes each time
	@[ "$(origin VERSION)" != file ] || { echo "make release needs a version, such as VERSION=0.1.0" >&2; exit 1; }
	cd tools/release && go run . --version '$(VERSION)' --repository ../.. --out ../../out/release --ignore-changes=$(IGNORE_CHANGES)

# What the modules in the images may be licensed by. All of it lets the images be under Apache-2.0.
LICENCES := Apache-2.0,BSD-2-Clause,BSD-3-Clause,ISC,MIT

.PHONY: licences
licences:
	@out=$$($(release-tool) go-licenses check --allowed_licenses=$(LICENCES) ./cmd/... 2>&1) || { echo "$$out" >&2; exit 1; }

.PHONY: audit
audit: licences ## licences of what is in the images, and its known vulnerabilities; asks Go's vulnerability database
	$(release-tool) govulncheck ./cmd/...

.PHONY: clean
clean: ## remove what was built here; the cache stays
	rm -rf bin out
