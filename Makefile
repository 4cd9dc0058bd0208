# errand's build. `make help` lists what there is.
#
# Go's settings stand here once: another set of flags would compile all of
# Kubernetes' packages a second time.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT  ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
PKG     := errand.dev/errand/internal/version
STAMP   := -X $(PKG).release=$(VERSION) -X $(PKG).commit=$(COMMIT)
# What `kubectl version` tells of the client; upstream's build stamps it too.
KUBE    := k8s.io/component-base/version
KUBEVER := $(shell go list -m -f '{{.Version}}' k8s.io/kubernetes 2>/dev/null)
KUBESTAMP := -X $(KUBE).gitVersion=$(KUBEVER) -X $(KUBE).gitCommit= -X $(KUBE).gitTreeState=archive
LDFLAGS := -s -w -buildid= $(STAMP) $(KUBESTAMP)

PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := build

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: env
env: ## Print Go's settings for a shell: eval "$$(make -s env)"
	@echo export CGO_ENABLED='$(CGO_ENABLED)' GOFLAGS="'$(GOFLAGS)'"

.PHONY: deps
deps: ## Install what the build and the tests need beyond Go (Debian and its kin, as root)
	@scripts/deps.sh

.PHONY: build
build: errand runc ## Build bin/errand, bin/errand-shim and, where the host has none that serves, bin/runc

.PHONY: errand
errand:
	@scripts/with-progress.sh "compiling errand (the first time takes some minutes)" \
	  go build -ldflags '$(LDFLAGS)' -o bin/errand ./cmd/errand
	go build -ldflags '-s -w -buildid= -X main.version=$(VERSION)' -o bin/errand-shim ./cmd/errand-shim

.PHONY: controller
controller: ## Build bin/errand-controller, which is errand controller alone
	go build -ldflags '$(LDFLAGS)' -o bin/errand-controller ./cmd/errand-controller

.PHONY: runc
runc:
	@scripts/runc.sh bin/runc

.PHONY: pinned-runc
pinned-runc: ## Build bin/runc in the version that build/runc pins, whatever the host has
	@scripts/runc.sh --pinned bin/runc

.PHONY: kubectl
kubectl: ## Build bin/kubectl, unmodified, for tests and the demo
	@scripts/with-progress.sh "compiling kubectl" \
	  go build -ldflags "-s -w $(KUBESTAMP)" -o bin/kubectl k8s.io/kubernetes/cmd/kubectl

.PHONY: root-for-demo
root-for-demo:
	@[ "$$(id -u)" -eq 0 ] || { echo "demo: needs root, for containers: sudo make demo" >&2; exit 1; }

.PHONY: demo
demo: root-for-demo deps build kubectl ## Walk through a Job's life in a temporary folder, and clean up
	@go build -o bin/errand-test-registry ./test/registry/cmd/errand-test-registry
	@scripts/demo.sh

.PHONY: test
test: deps build controller kubectl test-unit test-node test-e2e ## Run all tests (root; about ten minutes once compiled)

.PHONY: test-unit
test-unit: ## Tests that need no root
	@scripts/with-progress.sh "unit tests (the first time they take some minutes to compile)" go test ./...

.PHONY: test-node
test-node: ## Tests with real containers, mounts and networks (root)
	go test -tags node -count=1 -p 1 $(shell grep -rlE '^//go:build node' --include='*_test.go' internal | xargs -r -n1 dirname | sort -u | sed 's,^,./,')

.PHONY: test-e2e
test-e2e: ## Tests with the built errand and a real kubectl (root)
	go test -tags e2e -count=1 -timeout 30m ./test/e2e/...

.PHONY: test-slow
test-slow: deps build controller kubectl ## The tests that wait for real time, such as a TTL of 100 s, and hundreds of kills
	go test -tags e2e,slow -count=1 -timeout 60m -run Slow ./test/e2e/...

.PHONY: conformance
conformance: deps build kubectl ## Run upstream's own tests of Jobs, pods and volumes (root; FOCUS=regexp for others; docs/conformance.md)
	@scripts/conformance.sh bin/conformance
	go run ./test/conformance -focus '$(FOCUS)'

.PHONY: critest
critest: deps build ## Run upstream's validation of container runtimes on errand cri (root; FOCUS=regexp for some of it; docs/conformance.md)
	@scripts/critest.sh bin/critest
	go run ./test/critest -focus '$(FOCUS)'

.PHONY: cluster-programs
cluster-programs: ## Build bin/cluster: etcd, kube-apiserver and kube-controller-manager, unmodified, for test-cluster
	@mkdir -p bin/cluster
	@scripts/with-progress.sh "compiling kube-apiserver and kube-controller-manager (the first time takes some minutes)" \
	  go build -ldflags '-s -w $(KUBESTAMP)' -o bin/cluster/ k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
	@scripts/with-progress.sh "compiling etcd" go build -ldflags '-s -w' -o bin/cluster/etcd go.etcd.io/etcd/server/v3

.PHONY: test-cluster
test-cluster: controller cluster-programs ## errand controller on a real etcd, kube-apiserver and kube-controller-manager (no root; docs/controller.md)
	go test -tags cluster -count=1 -timeout 60m -parallel 16 -v ./test/cluster/...

# On what make test-cri runs the node: containerd, or containerd-as-crio, which
# answers as CRI-O does.
CRI ?= containerd

.PHONY: test-cri
test-cri: deps errand controller pinned-runc kubectl ## The node, and the contract of a runtime, on a containerd built from its module (root; CRI=containerd-as-crio with CRI-O's answers; docs/configuration.md)
	@scripts/containerd.sh bin/containerd
	go test -tags node -count=1 -timeout 15m ./test/containerd
	go test -tags e2e -count=1 -timeout 40m -skip '^Test(Controller|VersionAndCompletion|KubeconfigMerge|WithoutRoot|Dashboard)' ./test/e2e -runtime=$(CRI)

.PHONY: test-vm
test-vm: deps errand controller pinned-runc kubectl ## The node and e2e suites in a VM with cgroups v2 and systemd (root, qemu; PKGS="./internal/oci ./test/e2e" RUN=regexp for some of it)
	@PKGS='$(value PKGS)' RUN='$(value RUN)' scripts/vm.sh bin/vm

.PHONY: test-race
test-race: ## The tests whose packages are small enough for the race detector
	CGO_ENABLED=1 go test -race ./internal/jobs/... ./internal/sharing/... ./internal/lifecycle/... ./internal/oci/... ./internal/binder/...

.PHONY: test-model
test-model: ## The Job engine's model test with 1,000,000 random steps (about a minute)
	ERRAND_MODEL_STEPS=1000000 go test -count=1 -timeout 30m -run '^TestModel$$' ./internal/jobs

.PHONY: soak
soak: deps errand pinned-runc ## Put 20,000 pods through one errand and see that nothing grows (root; SOAK="-pods 4000" for fewer)
	go run ./test/soak $(SOAK)

.PHONY: bench
bench: deps errand pinned-runc kubectl ## Measure what docs/performance.md records
	go run ./test/bench

.PHONY: bench-node
bench-node: deps errand pinned-runc ## Measure what the node does for pods, by errand's launcher, runc and crun (root; NODEBENCH="-dir /dev/shm" without the disk)
	@scripts/crun.sh bin/debian13
	go run ./test/nodebench $(NODEBENCH)

.PHONY: bench-engine
bench-engine: ## Measure the Job engine without containers
	go run ./test/enginebench

.PHONY: bench-cluster
bench-cluster: controller cluster-programs ## Measure errand controller beside upstream's job controller on a real cluster
	go run ./test/clusterbench

.PHONY: lint
lint: ## Check formatting, vet and staticcheck
	@scripts/lint.sh

.PHONY: cross
cross: ## Check that it compiles for arm64
	GOARCH=arm64 go build -o /dev/null ./cmd/errand
	GOARCH=arm64 go build -o /dev/null ./cmd/errand-shim
	GOARCH=arm64 go build -o /dev/null ./cmd/errand-controller

.PHONY: repro
repro: ## Check that two builds in different folders are the same to the byte
	@VERSION='$(VERSION)' COMMIT='$(COMMIT)' scripts/repro.sh

.PHONY: install
install: build notices ## Install to $(PREFIX) with a systemd unit
	install -D -m 0755 bin/errand $(DESTDIR)$(PREFIX)/bin/errand
	install -D -m 0755 bin/errand-shim $(DESTDIR)$(PREFIX)/bin/errand-shim
	if [ -x bin/runc ]; then install -D -m 0755 bin/runc $(DESTDIR)$(PREFIX)/libexec/errand/runc; fi
	install -d $(DESTDIR)/etc/systemd/system
	sed 's,/usr/local/,$(PREFIX)/,g' deploy/errand.service > $(DESTDIR)/etc/systemd/system/errand.service
	chmod 0644 $(DESTDIR)/etc/systemd/system/errand.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/errand README.md SCOPE.md SECURITY.md $(wildcard docs/*.md)
	install -D -m 0644 dist/THIRD_PARTY_NOTICES $(DESTDIR)$(PREFIX)/share/doc/errand/THIRD_PARTY_NOTICES
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/errand/LICENSE

.PHONY: notices
notices: ## Write the licences of all that is linked in to dist/THIRD_PARTY_NOTICES
	@mkdir -p dist
	runc=; [ ! -x bin/runc ] || runc="-runc build/runc"; \
	  go run ./build/notices $$runc ./cmd/errand ./cmd/errand-shim > dist/THIRD_PARTY_NOTICES

# What make image packs, under which name and for which architectures. Its files
# have the time of the commit.
IMAGE        ?= errand.dev/errand-controller:$(VERSION)
IMAGE_ARCHES ?= $(shell go env GOARCH)
COMMIT_TIME  ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: image
image: ## Pack errand-controller into a container image, dist/errand-controller-image.tar (IMAGE_ARCHES="amd64 arm64" for both)
	@mkdir -p dist/image
	for arch in $(IMAGE_ARCHES); do \
	  GOARCH=$$arch scripts/with-progress.sh "compiling errand-controller for $$arch" go build -ldflags '$(LDFLAGS)' -o dist/image/errand-controller-$$arch ./cmd/errand-controller || exit 1; \
	done
	go run ./build/notices ./cmd/errand-controller > dist/image/THIRD_PARTY_NOTICES
	go run ./build/image -o dist/errand-controller-image.tar -name $(IMAGE) -created $(COMMIT_TIME) -version $(VERSION) -revision '$(COMMIT)' \
	  -doc LICENSE -doc dist/image/THIRD_PARTY_NOTICES $(foreach arch,$(IMAGE_ARCHES),$(arch)=dist/image/errand-controller-$(arch))
	@rm -rf dist/image

.PHONY: clean
clean: ## Remove what was built here; Go's caches stay
	rm -rf bin dist
