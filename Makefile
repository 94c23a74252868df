# One entry point: `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
FUZZER := $(VENV)/.fuzzer
PEERS  := $(VENV)/.peers
BROWSER := $(VENV)/.browser
SDK    := build/sdk/.installed
SITE   := build/site-tools/.installed
AGENTS := build/agents/.installed
CHDB   := $(VENV)/.chdb
KEYCLOAK_VERSION := 26.7.3
KEYCLOAK_SHA256  := 77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47
KEYCLOAK := build/keycloak-$(KEYCLOAK_VERSION)/bin/kc.sh
SCHEMAS := $(VENV)/.schemas
DIST_TOOLS := $(VENV)/.dist
WHEEL_TOOLS := $(VENV)/.wheel-tools
WHEEL := build/native/.built
CARGO := $(or $(shell command -v cargo),$(wildcard $(HOME)/.cargo/bin/cargo))
PYTEST := $(BIN)/python -m pytest
# A process that hangs inside C hears no signal: it is ended, and its test told. What runs alone still has to clean up.
SHARED := $(PYTEST) -q -n 2 --timeout-method=thread

# The tests start hundreds of interpreters; without bytecode kept in files each would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup fmt check lint types imports unit unit-wire unit-core unit-audit unit-rest test-core test-audit integration budgets test soak mutants interop interop-readme interop-spire interop-spire-soak interop-engine interop-frameworks interop-sdk interop-agents interop-mcp interop-inspector interop-conformance interop-siem interop-otel interop-http interop-browser interop-clickhouse interop-contain interop-keycloak interop-sts interop-three-hops systemd dist interop-dist image image-distroless need-image mesh alerts monitoring chart admission cluster fuzz fuzz-native bench bench-smoke settings-size demo picture docs lock clean

help: ## Show this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## Make .venv with every locked dependency

$(STAMP): requirements/run.txt requirements/dev.txt $(addsuffix pyproject.toml,core/ audit/ dev/) pyproject.toml
	@$(PYTHON) .ci/preflight.py
	@rm -rf $(VENV)
	@echo "setup: making $(VENV)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m virtualenv -q $(VENV)
	@$(BIN)/python .ci/preflight.py pip
	@echo "setup: installing locked dependencies (about a minute)"
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt -r requirements/dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e core -e audit -e . -e dev
	@touch $@

fmt: setup ## Format the code
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lint: setup
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .
	@$(BIN)/python .ci/prose.py && $(BIN)/codespell

types: setup
	@$(BIN)/mypy

imports: setup
	@$(BIN)/lint-imports

# Side by side, two at a time, as many as a small machine has cores. The unit tests are in parts, each a process: with
# xdist every worker would collect all of them, and a third process would read 30,000 reports.
BESIDE := $(MAKE) --no-print-directory --keep-going -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
UNIT_WIRE := tests/wire tests/proxy tests/features tests/fuzz
UNIT_CORE := tests/core tests/identity tests/exchange tests/sts
UNIT_AUDIT := tests/audit tests/explain tests/config tests/injector
UNIT := unit-wire unit-core unit-audit unit-rest
# A test that hangs inside C, where it hears no signal, is ended with its process, and named.
$(UNIT): PYTEST += -q -o faulthandler_timeout=90 -o faulthandler_exit_on_timeout=true

unit-wire: setup
	@$(PYTEST) $(UNIT_WIRE)

unit-core: setup
	@$(PYTEST) $(UNIT_CORE)

unit-audit: setup
	@$(PYTEST) $(UNIT_AUDIT)

unit-rest: setup
	@$(PYTEST) $(addprefix --ignore=,tests/integration tests/interop $(UNIT_WIRE) $(UNIT_CORE) $(UNIT_AUDIT))

ALONE = @$(PYTEST) -q -p tests.alone --alone $(1) tests/$(1)
test-core: setup ## Tests of the core's distribution, with everything else of this repository blocked
	$(call ALONE,core)

test-audit: setup ## Tests of the audit's distribution, without a sidecar
	$(call ALONE,audit)

unit: setup
	@$(BESIDE) $(UNIT)

check: setup ## Lint, types, import contracts, unit tests
	@$(BESIDE) $(UNIT) types lint imports

# Half of their time is waiting: three processes fill two cores. A busy machine takes several times as long. The order is that of tests/integration/conftest.py.
integration: setup ## Real sockets, real TLS, the embedded parts
	@$(PYTEST) -q -n 3 --timeout=180 --timeout-method=thread --dist loadfile --no-loadscope-reorder tests/integration

BUDGETS = $(shell grep -rl "mark\.budget" --include="test_*.py" --exclude-dir=interop tests)
budgets: setup ## Costs that other work on the machine can change (bytecodes, futures, memory, time): one process, alone
	@$(PYTEST) -q -m budget $(BUDGETS)

test: ## Every test that needs no foreign service; the budgets last, alone
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory integration
	@$(MAKE) --no-print-directory budgets

soak: setup ## Everything changes under load and nothing is lost (MINUTES=60, ARGS="--rate 200 --workers 2")
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),5) $(ARGS)

mutants: setup ## Drop each refusal, force each condition of the core, and list what no unit test notices (half an hour; ARGS="--only core/delegation_core/act.py")
	@$(BIN)/python -m tests.mutants $(ARGS)

interop-readme: setup ## README's commands in its order, in a fresh clone without cargo and with an empty home (pip; docker: ARGS="-k 'not compose'" where the engine has no bridge)
	@BUILD_ARGS="$(BUILD_ARGS)" $(PYTEST) -q -p no:randomly -p no:cacheprovider tests/interop/test_readme_walk.py $(ARGS)

interop-spire: setup ## Sidecars on real SPIRE servers and agents, beside go-spiffe; the files of config/spire (root; spire-server, spire-agent and go on PATH)
	@$(PYTEST) -q tests/interop/test_spire.py tests/interop/test_spire_entries.py tests/interop/test_spire_files.py tests/interop/test_spire_mesh.py tests/interop/test_spire_peers.py

interop-spire-soak: setup ## 200 rotations and two changes of authorities by real SPIREs under 200 requests a second (ARGS="--rate 100"; six minutes)
	@$(BIN)/python -m tests.interop.spire_soak $(ARGS)

interop-frameworks: setup ## Headers that agents' servers trust, on real ones behind a sidecar (FRAMEWORKS="gunicorn go": only these)
	@FRAMEWORKS="$(FRAMEWORKS)" $(PYTEST) -q -p no:randomly tests/interop/test_frameworks.py

interop-contain: setup ## One command stops a chain at 20 sidecar processes
	@$(PYTEST) -q -s -p no:randomly tests/interop/test_contain.py

$(SDK): requirements/sdk.txt
	@$(PYTHON) -m venv --clear build/sdk && .ci/retry build/sdk/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/sdk.txt && touch $@

interop-sdk: setup $(SDK) ## The Python clients of OpenAI, Anthropic and GitHub, with a key that only the sidecar holds
	@$(PYTEST) -q -p no:randomly tests/interop/test_model_clients.py

$(AGENTS): requirements/agents.txt
	@$(PYTHON) -m venv --clear build/agents && .ci/retry build/agents/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/agents.txt && touch $@

interop-mcp: setup $(AGENTS) ## The official client of MCP, through two sidecars (pip, npm)
	@$(PYTEST) -q -p no:randomly tests/interop/test_mcp.py

interop-inspector: setup $(AGENTS) $(BROWSER) ## MCP Inspector's web page in a Chromium on PATH, at an entry's door: login, tools, a call, and refusals (pip, npm)
	@$(PYTEST) -q -p no:randomly tests/interop/test_door_inspector.py

interop-conformance: setup $(AGENTS) ## The official conformance runners of MCP, every suite, straight and through two sidecars (pip, npm; three minutes)
	@$(PYTEST) -q -p no:randomly tests/interop/test_mcp_conformance.py

interop-agents: setup $(AGENTS) ## The libraries for agents, every program of examples/ in a mesh of real sidecars, and the demo's agents (pip, npm; java)
	@$(SHARED) --dist loadfile -p no:randomly tests/interop/test_agent_node.py tests/interop/test_agent_examples.py tests/interop/test_agent_grpc.py tests/interop/test_stand_ins.py tests/interop/test_a2a.py tests/interop/test_a2a_grpc.py tests/interop/test_door_clients.py

$(KEYCLOAK):
	@command -v mvn >/dev/null || { echo "interop-keycloak: set KEYCLOAK_HOME to an unpacked Keycloak, or install Maven"; exit 1; }
	@.ci/retry mvn -q -B dependency:copy -Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK_VERSION):tar.gz -DoutputDirectory=build
	@cd build && echo "$(KEYCLOAK_SHA256)  keycloak-quarkus-dist-$(KEYCLOAK_VERSION).tar.gz" | sha256sum --check --quiet && tar xzf keycloak-quarkus-dist-$(KEYCLOAK_VERSION).tar.gz && touch ../$@

interop-keycloak: setup $(if $(KEYCLOAK_HOME),,$(KEYCLOAK)) ## Logins, logouts and token exchange of a real Keycloak (Java 17; 176 MB by Maven, or KEYCLOAK_HOME)
	@KEYCLOAK_HOME="$(or $(KEYCLOAK_HOME),$(dir $(KEYCLOAK))..)" $(PYTEST) -q -s -p no:randomly tests/interop/test_keycloak.py tests/interop/test_keycloak_exchange.py

interop-three-hops: setup $(if $(KEYCLOAK_HOME),,$(KEYCLOAK)) ## docs/three-hops.md, block by block (root; SPIRE on PATH, Java 17, Keycloak as above)
	@KEYCLOAK_HOME="$(or $(KEYCLOAK_HOME),$(CURDIR)/$(dir $(KEYCLOAK))..)" $(PYTEST) -q -s -p no:randomly tests/interop/test_three_hops.py

STS_WANTED = $(filter keycloak,$(or $(STS_SERVERS),keycloak))
interop-sts: setup $(BROWSER) $(if $(KEYCLOAK_HOME)$(if $(shell command -v mvn),,x),,$(if $(STS_WANTED),$(KEYCLOAK))) ## Token-exchange servers and clients that are not ours, with real sidecars (pip; go; java, mvn; node, npm; chromium); STS_SERVERS="idpyoidc spring" STS_CLIENTS=authlib: only these
	@STS_SERVERS="$(STS_SERVERS)" STS_CLIENTS="$(STS_CLIENTS)" KEYCLOAK_HOME="$(or $(KEYCLOAK_HOME),$(wildcard $(dir $(KEYCLOAK))..))" $(PYTEST) -q -p no:randomly tests/interop/test_sts_servers.py tests/interop/test_sts_chains.py tests/interop/test_keycloak_login.py tests/interop/test_sts_clients.py tests/interop/test_doctor.py

interop-siem: setup ## The snippet of docs/siem.md on a real syslog-ng on PATH
	@$(PYTEST) -q -p no:randomly tests/interop/test_siem.py

OTELCOL_BUILT := build/otelcol/otelcol
$(OTELCOL_BUILT): tests/interop/otelcol/go.mod tests/interop/otelcol/go.sum tests/interop/otelcol/main.go
	@command -v go >/dev/null || { echo "interop-otel: put otelcol on PATH, name it in OTELCOL, or install Go"; exit 1; }
	@mkdir -p $(@D) && cd tests/interop/otelcol && $(CURDIR)/.ci/retry go build -buildvcs=false -mod=readonly -o $(CURDIR)/$@ .

OTELCOL_FOUND = $(or $(OTELCOL),$(shell command -v otelcol || command -v otelcol-contrib))
interop-otel: setup $(if $(OTELCOL_FOUND),,$(OTELCOL_BUILT)) ## One trace over three hops at a real OpenTelemetry Collector (OTELCOL, or on PATH; else built with Go)
	@OTELCOL="$(or $(OTELCOL_FOUND),$(CURDIR)/$(OTELCOL_BUILT))" $(PYTEST) -q -p no:randomly tests/interop/test_otel.py

H2SPEC_BUILT := build/h2spec/h2spec
$(H2SPEC_BUILT): tests/interop/h2spec/go.mod tests/interop/h2spec/go.sum
	@command -v go >/dev/null || { echo "interop-http: put h2spec on PATH, name it in H2SPEC, or install Go"; exit 1; }
	@mkdir -p $(@D) && cd tests/interop/h2spec && $(CURDIR)/.ci/retry go build -buildvcs=false -mod=readonly -o $(CURDIR)/$@ github.com/summerwind/h2spec/cmd/h2spec

GO_GRPC_BUILT := build/go_grpc/go_grpc
$(GO_GRPC_BUILT): tests/interop/go_grpc/go.mod tests/interop/go_grpc/go.sum tests/interop/go_grpc/main.go
	@command -v go >/dev/null || { echo "interop-http: install Go"; exit 1; }
	@mkdir -p $(@D) && cd tests/interop/go_grpc && $(CURDIR)/.ci/retry go build -buildvcs=false -mod=readonly -o $(CURDIR)/$@ .

H2SPEC_FOUND = $(or $(H2SPEC),$(shell command -v h2spec))
interop-http: setup $(GO_GRPC_BUILT) $(if $(H2SPEC_FOUND),,$(H2SPEC_BUILT)) ## h2spec, nghttp2's clients and Go's gRPC on running sidecars (go; H2SPEC, or on PATH, else built; nghttp and h2load on PATH)
	@H2SPEC="$(or $(H2SPEC_FOUND),$(CURDIR)/$(H2SPEC_BUILT))" GO_GRPC="$(CURDIR)/$(GO_GRPC_BUILT)" $(PYTEST) -q -p no:randomly tests/interop/test_http2.py tests/interop/test_grpc_go.py

RUST_GRPC_BUILT := build/rust_grpc/debug/rust_grpc
$(RUST_GRPC_BUILT): tests/interop/rust_grpc/Cargo.toml tests/interop/rust_grpc/Cargo.lock tests/interop/rust_grpc/main.rs
	@cd tests/interop/rust_grpc && PATH="$(dir $(CARGO)):$$PATH" CARGO_TARGET_DIR=$(CURDIR)/build/rust_grpc $(CURDIR)/.ci/retry cargo build -q --locked

JAVA_GRPC_BUILT := build/java_grpc/Client.class
$(JAVA_GRPC_BUILT): tests/interop/java_grpc/pom.xml tests/interop/java_grpc/Client.java
	@rm -rf $(@D) && mkdir -p $(@D)
	@.ci/retry mvn -q -B -f tests/interop/java_grpc/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)
	@javac -Xlint:all -Werror -proc:none -cp '$(@D)/*' -d $(@D) tests/interop/java_grpc/Client.java

STREAMS_GO = $(if $(shell command -v go),$(GO_GRPC_BUILT))
STREAMS_RUST = $(if $(CARGO),$(RUST_GRPC_BUILT))
STREAMS_JAVA = $(if $(shell command -v mvn && command -v javac),$(JAVA_GRPC_BUILT))
.PHONY: interop-streams
interop-streams: setup $(STREAMS_GO) $(STREAMS_RUST) $(STREAMS_JAVA) ## Calls of gRPC that stay open for ten minutes with little traffic, by clients in Python, Go, Rust and Java through two sidecars (go; cargo; java, mvn); SECONDS=60 for fewer
	@GO_GRPC="$(abspath $(STREAMS_GO))" RUST_GRPC="$(abspath $(STREAMS_RUST))" JAVA_GRPC="$(abspath $(patsubst %/,%,$(dir $(STREAMS_JAVA))))" $(PYTEST) -q -p no:randomly -s tests/interop/test_long_streams.py

GO_A2A_BUILT := build/go_a2a/go_a2a
$(GO_A2A_BUILT): tests/interop/go_a2a/go.mod tests/interop/go_a2a/go.sum tests/interop/go_a2a/main.go
	@command -v go >/dev/null || { echo "interop-agents-grpc: install Go"; exit 1; }
	@mkdir -p $(@D) && cd tests/interop/go_a2a && $(CURDIR)/.ci/retry go build -buildvcs=false -mod=readonly -o $(CURDIR)/$@ .

.PHONY: interop-agents-grpc
interop-agents-grpc: setup $(AGENTS) $(GO_A2A_BUILT) ## A2A by gRPC with the official SDKs of Go and JavaScript, as client and as server through two sidecars (go; pip, npm)
	@GO_A2A="$(CURDIR)/$(GO_A2A_BUILT)" $(PYTEST) -q -p no:randomly tests/interop/test_a2a_sdks.py

$(BROWSER): $(STAMP) requirements/browser.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/browser.txt && touch $@

interop-browser: setup $(BROWSER) site ## The report, the policy page, the live page and the documentation in a real Chromium on PATH; pictures into build/browser
	@$(PYTEST) -q -p no:randomly tests/interop/test_report_page.py tests/interop/test_policy_page.py tests/interop/test_live_page.py tests/interop/test_site.py

$(CHDB): $(STAMP) requirements/chdb.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/chdb.txt && touch $@

interop-clickhouse: setup $(CHDB) ## Chains judged in ClickHouse (chdb, 180 MB) as by DuckDB
	@$(PYTEST) -q -p no:randomly tests/interop/test_clickhouse.py

systemd: setup ## The unit, installed by docs/systemd.md under a booted systemd (root; python3-venv)
	@$(PYTEST) -q -p no:randomly tests/interop/test_systemd.py

interop: interop-readme interop-spire systemd interop-engine interop-frameworks interop-sdk interop-agents interop-mcp interop-inspector interop-conformance interop-siem interop-otel interop-http interop-agents-grpc interop-browser interop-clickhouse interop-contain interop-keycloak interop-three-hops interop-sts interop-dist ## Everything against real counterparts

$(DIST_TOOLS): $(STAMP) requirements/dist.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dist.txt && touch $@

# What builds the native engine's wheel, only where cargo is: elsewhere `make dist` and `make release` leave it out, and say so.
NATIVE_TOOLS = $(if $(CARGO),$(WHEEL_TOOLS))

dist: setup $(DIST_TOOLS) $(NATIVE_TOOLS) ## Build wheels (the native engine's where cargo is), sdists, charts, completion scripts, bills of materials and SHA256SUMS into dist/, the same bytes from the same commit (ZIG=--zig)
	@ZIG="$(ZIG)" $(BIN)/python .ci/dist.py dist

.PHONY: release
release: setup $(DIST_TOOLS) $(NATIVE_TOOLS) ## Everything of a release into build/release: dist, images, provenance, RELEASE.md (WITHOUT="images helm", ZIG=--zig, PYTHON_IMAGE, SOURCE_URI, BUILDER_ID)
	@ZIG="$(ZIG)" PYTHON_IMAGE="$(PYTHON_IMAGE)" BUILD_ARGS="$(BUILD_ARGS)" $(BIN)/python .ci/release.py $(or $(OUT),build/release) $(addprefix --without ,$(WITHOUT))

interop-dist: setup $(DIST_TOOLS) $(if $(CARGO),$(WHEEL)) ## Build artifacts and images twice from two clones and compare; install by pip, pipx and uv tool
	@BUILD_ARGS="$(BUILD_ARGS)" PYTHON_IMAGE=$(PYTHON_IMAGE) $(PYTEST) -q -p no:randomly tests/interop/test_dist.py $(ARGS)

# --- the native engine: optional, and `make setup` needs no compiler. TARGET="aarch64-unknown-linux-gnu" for arm64
TARGET ?=
NATIVE_WHEEL = SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0) nice $(BIN)/python .ci/native_wheel.py
$(WHEEL_TOOLS): $(STAMP) requirements/native.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/native.txt && touch $@

$(WHEEL): $(wildcard sidecar/native/src/*.rs) sidecar/native/Cargo.toml sidecar/native/Cargo.lock sidecar/native/pyproject.toml | $(WHEEL_TOOLS)
	@rm -rf build/native && mkdir -p build/native
	@$(NATIVE_WHEEL) build/native
	@touch $@

.PHONY: native native-for native-emulated native-lint test-native
native: setup $(WHEEL) ## Build the wheel of the native engine into build/native, and install it into .venv (cargo)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-index --force-reinstall build/native/*.whl
	@ls build/native/*.whl

native-for: setup $(WHEEL_TOOLS) ## Build it for another machine into build/native-TARGET (TARGET=aarch64-unknown-linux-gnu; its linker, or ziglang from PyPI)
	@$(NATIVE_WHEEL) build/native-$(TARGET) --target $(TARGET) $(ZIG)
	@ls build/native-$(TARGET)/*.whl

# Another processor, emulated. The tests are those of both engines that need no other program.
ARM64 := build/arm64
ARM64_TARGET := aarch64-unknown-linux-gnu
ARM64_WHEELS = $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 --python-version 3.11 --implementation cp --target $(ARM64)/lib
native-emulated: setup ## Run the native engine's tests on an emulated arm64 (Debian: mmdebstrap, qemu-user-static; rustup target add aarch64-unknown-linux-gnu; ziglang in .venv; six minutes)
	@$(MAKE) --no-print-directory native-for TARGET=$(ARM64_TARGET) ZIG=--zig
	@rm -rf $(ARM64) && mkdir -p $(ARM64)
	@mmdebstrap -q --architectures=arm64 --variant=extract --include=python3 bookworm $(ARM64)/debian
	@.ci/retry $(ARM64_WHEELS) --require-hashes -r requirements/run.txt -r requirements/dev.txt
	@$(ARM64_WHEELS) --abi abi3 --no-index build/native-$(ARM64_TARGET)/*.whl
	@PYTHONPATH=$(ARM64)/lib:. nice qemu-aarch64-static -L $(ARM64)/debian $(ARM64)/debian/usr/bin/python3 -m pytest -q -p no:cacheprovider --timeout=600 tests/test_engine.py tests/wire/test_write_batch.py tests/proxy/test_native_bugs.py tests/proxy/test_native_random.py tests/proxy/test_prepared_bytes.py $(filter-out %_cost.py,$(wildcard tests/proxy/test_warm*.py)) tests/integration/test_engine.py

native-lint: ## Format and lint the native engine's sources (cargo)
	@cd sidecar/native && PATH="$(dir $(CARGO)):$$PATH" cargo fmt --check && PATH="$(dir $(CARGO)):$$PATH" CARGO_TARGET_DIR=../../build/native-target cargo clippy -q --locked -- -D warnings

# Of one machine in one process after another: what the data plane does with real sockets.
NATIVE_TESTS := authority closing corpus endings engine evidence hostile inbound lifecycle mesh one_record outbound outbound_tokens pooling reload soak walls workers
# Without the wheel the tests of both engines skip the native one. With it, `auto` is the native one everywhere.
OF_BOTH_ENGINES = $(shell grep -lrE "tests\.native|tests\.proxy\.engines|native_module" --include="test_*.py" --exclude-dir=integration --exclude-dir=interop tests)
test-native: native ## The tests of both engines, and those of the data plane on the native engine, with real sockets
	@$(SHARED) $(OF_BOTH_ENGINES)
	@$(PYTEST) -q -m budget $(OF_BOTH_ENGINES) tests/integration/test_warm_path.py
	@$(SHARED) $(addprefix tests/integration/test_,$(addsuffix .py,$(NATIVE_TESTS)))

fuzz-native: native ## Give both engines the same random bytes, and compare what they do (MINUTES=60, ARGS="--seed 7")
	@$(BIN)/python -m tests.proxy.differ --minutes $(MINUTES) $(ARGS)

# --- containers: `docker` on PATH and DOCKER_HOST say which engine
IMAGE            ?= sidecar:dev
DEV_IMAGE        ?= sidecar-dev:dev
PYTHON_IMAGE     ?= python:3.13-slim
DISTROLESS_IMAGE ?= gcr.io/distroless/python3-debian13:nonroot
BUILD_ARGS       ?=
BUILD = docker build $(BUILD_ARGS) --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) \
  --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py) \
  --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
  --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 0)

image: $(if $(CARGO),$(if $(wildcard $(STAMP)),$(WHEEL))) ## Build both images, the product's and the one with tools for development; with the native engine where cargo is (IMAGE=sidecar:dev DEV_IMAGE=sidecar-dev:dev PYTHON_IMAGE=python:3.13-slim)
	@.ci/retry $(BUILD) -t $(IMAGE) .
	@.ci/retry $(BUILD) --target sidecar-dev -t $(DEV_IMAGE) .

image-distroless: ## The same on a base without a shell (DISTROLESS_IMAGE=...)
	@.ci/retry $(BUILD) --build-arg RUNTIME_IMAGE=$(DISTROLESS_IMAGE) -t $(IMAGE)-distroless .
	@.ci/retry $(BUILD) --build-arg RUNTIME_IMAGE=$(DISTROLESS_IMAGE) --target sidecar-dev -t $(DEV_IMAGE)-distroless .

# Not marked as done by a file: the engine knows what images it has.
need-image:
	@! command -v docker >/dev/null || docker image inspect $(IMAGE) $(DEV_IMAGE) >/dev/null 2>&1 || $(MAKE) image

mesh: setup need-image ## Bring the compose mesh up, attack it, restart it in every order, crash its parts, drain it, take it down
	@SIDECAR_IMAGE=$(IMAGE) SIDECAR_DEV_IMAGE=$(DEV_IMAGE) $(PYTEST) -q -p no:randomly tests/interop/test_compose.py tests/interop/test_compose_acting.py

.PHONY: mesh-spire
mesh-spire: setup need-image ## The compose mesh with identities of a real SPIRE (SPIRE_SERVER_IMAGE, SPIRE_AGENT_IMAGE, else those of ghcr.io)
	@! command -v docker >/dev/null || docker image inspect spire-setup:dev >/dev/null 2>&1 || SIDECAR_DEV_IMAGE=$(DEV_IMAGE) docker compose -f compose.yaml -f compose.spire.yaml build -q spire-setup
	@SIDECAR_IMAGE=$(IMAGE) SIDECAR_DEV_IMAGE=$(DEV_IMAGE) $(PYTEST) -q -p no:randomly tests/interop/test_compose_spire.py

alerts: setup ## Alert rules with promtool: each fires and stays quiet, and no change of one goes unnoticed
	@$(PYTEST) -q -p no:randomly -n auto tests/interop/test_alerts.py

ALERTS ?= alerts
monitoring: $(ALERTS) need-image ## Rules, dashboard and metrics with promtool and Prometheus
	@SIDECAR_IMAGE=$(IMAGE) SIDECAR_DEV_IMAGE=$(DEV_IMAGE) $(PYTEST) -q -p no:randomly tests/interop/test_monitoring.py

interop-engine: mesh monitoring ## Image, mesh and monitoring on a real Docker engine
	@SIDECAR_IMAGE=$(IMAGE) SIDECAR_DEV_IMAGE=$(DEV_IMAGE) SIDECAR_IMAGE_DISTROLESS=$(IMAGE)-distroless $(PYTEST) -q -p no:randomly tests/interop/test_image.py tests/interop/test_image_memory.py

$(SCHEMAS): $(STAMP) requirements/chart.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/chart.txt && touch $@

chart: setup $(SCHEMAS) ## Render the Helm charts over their matrix and random values, with every Helm on PATH (CHART_SEEDS=25)
	@$(SHARED) -p no:randomly tests/interop/test_chart.py tests/interop/test_chart_identities.py tests/interop/test_chart_revocations.py tests/interop/test_chart_plain.py tests/interop/test_chart_mounts.py tests/interop/test_chart_door.py tests/interop/test_chart_settings.py

ADMISSION = $(PYTEST) -q -n 2 --dist loadfile -p no:randomly tests/interop/test_admission.py tests/interop/test_admission_chart.py tests/interop/test_admission_fields.py $(ARGS)
admission: setup ## Injector, policy, Pod Security, Helm in a real API server that shares our loopback, one of KUBECONFIG_OLDEST too (CHART_SEEDS=25)
	@$(ADMISSION)
	@[ -z "$$KUBECONFIG_OLDEST" ] || KUBECONFIG=$$KUBECONFIG_OLDEST $(ADMISSION)

cluster: setup ## SPIRE's attestors on a real Kubernetes; the example, from its five commands to an uninstall (kubectl, helm, KUBECONFIG)
	@SIDECAR_IMAGE=$(IMAGE) SIDECAR_DEV_IMAGE=$(DEV_IMAGE) $(PYTEST) -q -p no:randomly tests/interop/test_cluster_spire.py tests/interop/test_cluster.py tests/interop/test_cluster_grpc.py tests/interop/test_cluster_life.py

$(FUZZER): $(STAMP) requirements/fuzz.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/fuzz.txt && touch $@ || echo "fuzz: atheris cannot be had for this Python or machine"

MINUTES ?= 1
fuzz: setup $(FUZZER) ## Fuzz every reader of foreign bytes (MINUTES=60, ARGS="request_stream --jobs 4")
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES) $(ARGS)

$(PEERS): $(STAMP) requirements/bench.txt
	@.ci/retry $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bench.txt && touch $@ || echo "bench: Envoy cannot be had for this Python or machine"

bench: setup $(PEERS) ## Beside HAProxy, nginx, Envoy and others, about two hours (ARGS="--before REF" compares versions in 25 minutes)
	@$(BIN)/python -m benchmarks.run --out build/bench $(or $(ARGS),--all)

settings-size: setup ## Bytes, seconds and MiB of settings at the advertised size: docs/sizing.md
	@$(BIN)/python benchmarks/settings_size.py

bench-smoke: setup ## Under two minutes, with wide limits: has something become several times slower?
	@$(BIN)/python -m benchmarks.run --smoke --seconds 0.5 --rounds 2 --out build/bench-smoke $(ARGS)

demo: setup ## Three hops, three tokens, no impersonation (ARGS="--verbose --keep", ARGS=--json)
	@$(BIN)/sidecar demo $(ARGS)

picture: setup ## Draw the README's picture again, from a run of the demo
	@$(BIN)/python .ci/picture.py

docs: setup ## Write the pages of commands, records, reasons, settings and metrics again, the JSON Schemas, and the completion scripts
	@$(BIN)/python -m sidecar.explain.docs docs
	@$(BIN)/python -m sidecar.config.docs docs config
	@$(BIN)/python -m sidecar.observe.docs docs
	@$(BIN)/python -m delegation_audit.selectors.docs docs/selectors.md
	@$(BIN)/python .ci/chart_docs.py helm/sidecar helm/sidecar-lib
	@$(BIN)/python .ci/chart_schema.py helm/sidecar/values.schema.json
	@$(BIN)/python .ci/cli_docs.py docs
	@$(BIN)/python -m tests.walls ARCHITECTURE.md
	@$(BIN)/python .ci/completions.py sidecar/completions

$(SITE): requirements/site.txt
	@$(PYTHON) -m venv --clear build/site-tools && .ci/retry build/site-tools/bin/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/site.txt && touch $@

.PHONY: site
site: $(SITE) ## The documentation as pages with search that need no server and no network: build/site/index.html
	@build/site-tools/bin/sphinx-build -q -W --keep-going -c .ci/site -d build/site-tools/read . build/site
	@echo "site: build/site/index.html"

lock: setup ## Write the lock files again from pyproject.toml and dev.in
	@$(BIN)/python -m pip install -q pip-tools
	@$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w build/own ./core  # which the product requires
	@CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --find-links build/own --unsafe-package delegation-core --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o requirements/run.txt pyproject.toml core/pyproject.toml
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o dev.txt dev.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o fuzz.txt fuzz.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o native.txt native.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o bench.txt bench.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o build.txt build.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o health.txt health.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o chart.txt chart.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o otel.txt otel.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o pretty.txt pretty.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o audit.txt audit.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o dist.txt dist.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o frameworks.txt frameworks.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o browser.txt browser.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o sdk.txt sdk.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o sts.txt sts.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o agents.txt agents.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o clickhouse.txt clickhouse.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o chdb.txt chdb.in
	@cd requirements && CUSTOM_COMPILE_COMMAND="make lock" ../$(BIN)/pip-compile -q --upgrade --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o site.txt site.in

clean: ## Remove what make made
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info $(foreach one,core audit dev agent,$(one)/*.egg-info $(one)/build)
