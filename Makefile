# The few commands of this project. "make check" is what CI runs before real Flink.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
FUZZTIME ?= 30s
INTERLEAVINGS ?= 1000

# Where tests keep what they install and download, as package lab and servers do.
CACHE     := $(or $(CHKPIN_LAB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chkpin-lab)
VERSITYGW := $(CACHE)/bin/versitygw-v1.8.0
AZURITE   := $(CACHE)/azurite-3.35.0

.PHONY: build tools test lint check demo e2e fuzz interleavings matrix bench clean airflow kube-tools kube-tools-small kube chart

build: ## the static binary, build/chkpin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o build/chkpin ./cmd/chkpin

tools: $(VERSITYGW) $(AZURITE) ## the S3 and the Azure server that tests run against; minutes once, then cached

$(VERSITYGW):
	mkdir -p $(@D)/.install
	GOBIN=$(@D)/.install CGO_ENABLED=0 $(GO) install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	mv $(@D)/.install/versitygw $@

$(AZURITE): # complete as soon as it has its name
	rm -rf $@.unfinished
	npm install --prefix $@.unfinished --no-audit --no-fund --ignore-scripts azurite@3.35.0
	mv $@.unfinished $@

test: tools ## everything that needs nothing but Go and Node.js
	$(GO) test -timeout 20m ./...

lint: ## gofmt, vet and staticcheck, also of the files that only e2e and chart build; go.mod is tidy
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-ed:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e,chart ./...
	$(GO) vet -tags kube ./cmd/chkpin/kube/...
	GOOS=darwin $(GO) vet ./blobstore/... ./checkpoint/... ./flinkrest/...
	$(GO) tool staticcheck -tags e2e,chart ./...
	$(GO) tool staticcheck -tags kube ./cmd/chkpin/kube/...
	$(GO) mod tidy -diff

check: lint test ## all of CI but real Flink

demo: build ## pin, prove, delete the origin, prove again: seconds, no Flink needed
	$(GO) run ./cmd/chkpin/demo build/chkpin

e2e: tools ## real Flink; CHKPIN_E2E=all runs every release and state backend
	$(GO) test -tags e2e -count=1 ./cmd/chkpin/e2e/*/
	$(GO) test -tags e2e -count=1 -timeout 30m -v ./cmd/chkpin/e2e/

matrix: tools ## real Flink, every release and kind of state: the cells without a result in docs/restore-matrix.json, or CELLS='2.3.0/*'
	CHKPIN_MATRIX='$(CELLS)' CHKPIN_MATRIX_RESULTS='$(CURDIR)/docs' $(GO) test -tags e2e -count=1 -timeout 0 -v -run TestRestoreMatrix ./cmd/chkpin/e2e/

fuzz: ## the metadata parser and the URI, FUZZTIME each
	$(GO) test -run '^$$' -fuzz FuzzParse -fuzzminimizetime 1x -fuzztime $(FUZZTIME) ./checkpoint/metadata
	$(GO) test -run '^$$' -fuzz Fuzz -fuzztime $(FUZZTIME) ./blobstore

interleavings: ## the tests of checkpoint, with INTERLEAVINGS of each kind of ticks, collections and rollbacks at once
	$(GO) test -count=1 -timeout 0 ./checkpoint -interleavings $(INTERLEAVINGS)

bench: tools build ## ratios against yardsticks measured in the same run; minutes
	$(GO) test -run '^$$' -bench . -benchtime 5x ./checkpoint/metadata
	$(GO) run ./cmd/chkpin/bench build/chkpin

AIRFLOW := $(CACHE)/airflow-3.3.2

airflow: build $(AIRFLOW)/.installed ## a real Airflow parses the DAG in manifests/airflow; half a GB once, then cached
	PYTHONDONTWRITEBYTECODE=1 AIRFLOW_HOME=$(AIRFLOW)/home AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING $(AIRFLOW)/bin/python manifests/airflow/check.py build/chkpin

$(AIRFLOW)/.installed: manifests/airflow/requirements.lock
	python3 -m venv --clear $(AIRFLOW)
	$(AIRFLOW)/bin/pip install --quiet --only-binary :all: --requirement $<
	touch $@

kube: tools kube-tools ## chkpin in a real cluster on this machine, as root; a table of scenarios, docs/kube-scenarios.md
	$(GO) test -tags kube -count=1 -timeout 90m -v ./cmd/chkpin/kube/ -record $(CURDIR)/docs/kube-scenarios.md

kube-tools: ## a Kubernetes cluster's programs, Helm, kubeconform and promtool; 15 minutes of CPU once, then cached
	$(MAKE) -C cmd/chkpin/kube/tools GO='$(GO)' CACHE='$(CACHE)' all

kube-tools-small: ## of these only what renders and checks manifests
	$(MAKE) -C cmd/chkpin/kube/tools GO='$(GO)' CACHE='$(CACHE)' small

chart: kube-tools-small ## the Helm chart and the overlays render what they are known to, and Kubernetes' schemas accept it
	PATH='$(CACHE)/bin/kubernetes-v1.36.3':"$$PATH" $(GO) test -count=1 -tags chart -run 'TestChart|TestOverlays' ./cmd/chkpin/

clean:
	rm -rf build
