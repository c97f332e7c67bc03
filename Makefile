# The commands people type. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PRETRAIN := cargo run --quiet --bin pretrain --
SAMPLE := data/sample/uniprot_sample.fasta.gz

# Reference programs (JAX, transformers) run in their own Python environment. Building, training and
# testing do not need it.
REFERENCE := target/python
REFERENCE_PYTHON := $(REFERENCE)/bin/python

# PyTorch's T5, in the newest transformers. The version of the reference programs is installed too,
# to be put first on the path.
TORCH := target/torch
TORCH_PYTHON := $(TORCH)/bin/python
TRANSFORMERS_4 := $(TORCH)/transformers-4

# Servers that the tests start on loopback, and programs whose tables they read.
SERVERS := target/servers

# Programs that check and build what is not Rust.
TOOLS := target/tools

# Programs that check scripts and manifests.
DEPLOY := target/deploy

# What drives the system's Chromium.
BROWSER := target/browser

# What reads the telemetry of runs: TensorBoard, and Prometheus's parser.
WATCHERS := target/watchers

# A Python environment around the target, with what its first prerequisite lists.
environment = rm -rf $(@D) && $(PYTHON) -m venv $(@D) && \
  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<

.PHONY: help
help: ## list these commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# Another number of steps than the demo has, for a look.
STEPS ?=

.PHONY: demo
demo: plugin ## train a small model on the bundled proteins, in minutes
	cargo build --bin pretrain
	rm -rf demo/data demo/run
	$(PRETRAIN) prepare --output demo/data --validation-fraction 0.05 $(SAMPLE)
	$(PRETRAIN) --config demo --data demo/data --run-dir demo/run $(if $(STEPS),--steps $(STEPS))

# Compiling programs is most of the suite's time. Without LLVM's optimizations it takes half as
# long.
.PHONY: test
test: plugin $(SERVERS)/ready ## run every test
	XLA_FLAGS=--xla_backend_optimization_level=0 cargo test --workspace

# Without a TPU, libtpu would ask a missing metadata server for minutes, and let only one process at
# a time load it.
.PHONY: test-tpu
test-tpu: libtpu ## run the tests that need libtpu (and no TPU)
	TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 cargo test --workspace -- --ignored

# How often two trainers are started in one run directory.
ROUNDS ?= 50

.PHONY: check-trainers
check-trainers: plugin ## start two trainers in one run directory ROUNDS times, and compare every step they save
	ROUNDS=$(ROUNDS) cargo test --test integration of_two_trainers -- --nocapture

# How many processes are killed. Each start of 4 hosts takes some 20 seconds on two cores.
KILLS ?= 200

.PHONY: torture
torture: plugin ## stop and kill processes of 4 hosts, KILLS of them at random moments, and compare every step they save
	HOSTS=4 KILLS=$(KILLS) XLA_FLAGS=--xla_backend_optimization_level=0 \
	cargo test --test integration hosts:: -- --nocapture --test-threads=1

# tests/valgrind.supp excludes what happens inside the plugin. The test of memory is excluded too:
# it measures the memory of the process, which differs under valgrind.
VALGRIND := 'valgrind', '--quiet', '--error-exitcode=1', '--leak-check=full', '--show-leak-kinds=definite', \
  '--errors-for-leak-kinds=definite', '--suppressions=tests/valgrind.supp', '--num-callers=40'
CHECKED := --lib $(addprefix --test=,devices execution loading parts search transfers wakers)

.PHONY: check-pjrt
check-pjrt: plugin ## run the tests of pjrt/ under valgrind
	RUST_BACKTRACE=0 cargo test --package ankh-pjrt $(CHECKED) --config "target.'cfg(all())'.runner = [$(VALGRIND)]" -- --test-threads=1

.PHONY: newcomer
newcomer: plugin ## run the commands of docs/first-hour.md, as someone new would
	$(PYTHON) tests/newcomer.py

.PHONY: docs
docs: $(TOOLS)/ready ## build the documentation as a site, in target/book
	rm -rf target/book
	@$(TOOLS)/bin/mdbook build 2>&1 | tee target/book.log; \
	if grep -qE 'WARN|ERROR' target/book.log; then exit 1; fi
	$(PYTHON) tests/links.py site target/book

.PHONY: lint
lint: $(TOOLS)/ready ## check formatting, clippy, structure, names, widths, links, licenses, and that `unsafe` stays in pjrt/
	$(PYTHON) tests/house.py check
	$(PYTHON) tests/links.py
	$(TOOLS)/bin/hadolint deploy/Containerfile
	$(TOOLS)/bin/cargo-deny --offline check licenses bans sources
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	@if git grep --line-number --word-regexp unsafe -- '*.rs' ':!pjrt' | grep --invert-match --extended-regexp ':[0-9]+: *//'; \
	then echo 'unsafe code belongs in pjrt/ alone' >&2; exit 1; fi

.PHONY: structure
structure: ## draw the crates and modules, each with what it uses
	@$(PYTHON) tests/house.py

.PHONY: picture
picture: ## put what `make structure` draws into ARCHITECTURE.md
	@$(PYTHON) tests/house.py write

.PHONY: advisories
advisories: $(TOOLS)/ready ## check dependencies against the database of known vulnerabilities, which is downloaded
	$(TOOLS)/bin/cargo-deny check advisories

# The profile of releases takes some minutes to build.
.PHONY: dist
dist: ## build the archive of a release, with checksums, in target/dist
	cargo build --release --locked --bin pretrain
	$(PYTHON) deploy/dist.py target/release/pretrain target/dist

.PHONY: bench
bench: plugin $(REFERENCE)/ready ## compare a training step with JAX's
	cargo build --example step_time
	$(REFERENCE_PYTHON) benches/compare.py

# Which steps to compile: shallow (the default), ankh-large (all of its layers, which takes long).
DEPTHS ?= shallow

.PHONY: bench-generate
bench-generate: plugin $(TORCH)/ready ## compare generation with PyTorch's T5 in transformers
	cargo build --example token_time
	$(TORCH_PYTHON) benches/generate.py

.PHONY: bench-tpu
bench-tpu: libtpu $(REFERENCE)/ready ## compare a step's cycles with JAX's, no TPU needed
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) benches/compare_tpu.py --depth $(DEPTHS)

# A real set of variants: its package, with the checksum, and the table made of it. Nothing of the
# package is installed.
CR6261 := target/cr6261

.PHONY: bench-score
bench-score: plugin $(REFERENCE)/ready $(CR6261)/variants.csv ## compare scoring 2,048 variants with a loop in transformers (needs `make demo`)
	cargo build --bin pretrain
	rm -rf $(CR6261)/hf
	$(PRETRAIN) export --checkpoint demo/run --output $(CR6261)/hf
	$(REFERENCE_PYTHON) benches/score.py $(CR6261)/variants.csv --weights $(CR6261)/hf

.PHONY: score-cr6261
score-cr6261: plugin $(CR6261)/variants.csv ## score 2,048 variants of an antibody with the demo's weights (needs `make demo`)
	$(PRETRAIN) score --weights demo/run --replace --output $(CR6261)/scores.csv $(CR6261)/variants.csv

# Real proteins with labels, in the formats that `pretrain benchmark` reads. Packages are fetched
# with their checksums, and none is installed.
BENCHMARKS := target/benchmarks

.PHONY: benchmark-data
benchmark-data: $(BENCHMARKS)/ready ## fetch 50 structures and three sets of labelled proteins, and make benchmarks' files of them

.PHONY: benchmark-model
benchmark-model: plugin $(BENCHMARKS)/ready ## pre-train a small model on proteins that no benchmark tests, for about 40 minutes
	cargo build --bin pretrain
	rm -rf $(BENCHMARKS)/prepared $(BENCHMARKS)/short $(BENCHMARKS)/middle $(BENCHMARKS)/run
	$(PRETRAIN) prepare --output $(BENCHMARKS)/prepared --validation-fraction 0.02 $(BENCHMARKS)/pretraining.fasta
	$(PRETRAIN) --config benches/benchmark_model.toml --data $(BENCHMARKS)/prepared --run-dir $(BENCHMARKS)/short --slice cpu-2
	$(PRETRAIN) --config benches/benchmark_model_128.toml --initialize-from $(BENCHMARKS)/short --data $(BENCHMARKS)/prepared --run-dir $(BENCHMARKS)/middle --slice cpu-2
	$(PRETRAIN) --config benches/benchmark_model_256.toml --initialize-from $(BENCHMARKS)/middle --data $(BENCHMARKS)/prepared --run-dir $(BENCHMARKS)/run --slice cpu-2

.PHONY: benchmarks
benchmarks: plugin $(BENCHMARKS)/ready $(REFERENCE)/ready ## measure those weights (or WEIGHTS=...) beside random ones and beside no encoder
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) benches/benchmarks.py --weights $(or $(WEIGHTS),$(BENCHMARKS)/run) \
	--seeds $(or $(SEEDS),3) --only "$(ONLY)"

# A family of antibodies' heavy chains from that package, and the weights that learn it.
VH := target/vh
VH_SEQUENCES ?= 4000

.PHONY: variants-vh
variants-vh: plugin $(CR6261)/variants.csv ## make variants of antibodies, High-N and One-N, with WEIGHTS (by default the demo's: needs `make demo`)
	mkdir -p $(VH)
	$(PYTHON) tests/python/vh_family.py $(CR6261)/ewht-*.whl $(VH_SEQUENCES) $(VH)/family.a2m $(VH)/cr6261.fasta
	$(PRETRAIN) variants high-n --weights $(or $(WEIGHTS),demo/run) --family $(VH)/family.a2m --prompts 100 --batch-size 320 --output $(VH)/high-n
	$(PRETRAIN) variants one-n --weights $(or $(WEIGHTS),demo/run) --sequence $(VH)/cr6261.fasta --family $(VH)/family.a2m --batch-size 300 --output $(VH)/one-n

# Of each target; all together are some minutes.
RUNS ?= 5000000
FUZZ := -runs=$(RUNS) -max_len=4096 -timeout=30 -rss_limit_mb=1024 -artifact_prefix=artifacts/ -print_final_stats=1

.PHONY: fuzz
fuzz: ## throw RUNS mutated files, manifests and courses of a run's hosts at what reads them
	mkdir -p data/fuzz/artifacts data/fuzz/corpus/fasta data/fuzz/corpus/manifest
	cd data/fuzz && cargo run --quiet --bin fasta -- $(FUZZ) -dict=fasta.dict corpus/fasta seeds/fasta
	cd data/fuzz && cargo run --quiet --bin manifest -- $(FUZZ) corpus/manifest seeds/manifest
	mkdir -p cluster/fuzz/artifacts cluster/fuzz/corpus/coordinator
	cd cluster/fuzz && cargo run --quiet --bin coordinator -- $(FUZZ) corpus/coordinator seeds/coordinator

.PHONY: bench-embed
bench-embed: plugin $(REFERENCE)/ready $(TORCH)/ready ## compare `pretrain embed` with transformers' encoder, in Flax and in PyTorch
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) benches/embed.py --torch $(TORCH_PYTHON)

# How often the state of a billion parameters is saved and restored.
SAVES ?= 3

.PHONY: bench-checkpoint
bench-checkpoint: plugin ## compare saving and restoring a state with dd (needs 8 GB of disk)
	cargo run --quiet --example checkpoint_speed -- target $(SAVES) ankh-large model.encoder_layers=24 model.decoder_layers=12

.PHONY: bench-restart
bench-restart: plugin ## time a restart of a billion parameters from memory (needs 16 GB of it)
	cargo build --bin pretrain
	$(PYTHON) benches/restart.py target/debug/pretrain $(SAMPLE) target/bench/restart

.PHONY: bench-data
bench-data: $(REFERENCE)/ready ## compare masked batches a second with PyArrow's, Grain's and T5's recipe
	cargo build --bin pretrain
	cargo build --package ankh-data --example synthesize --example throughput
	mkdir -p target/bench
	cargo run --quiet --package ankh-data --example synthesize -- --records 1000000 --seed 1 --output target/bench/uniref50.fasta
	$(PRETRAIN) prepare --replace --output target/bench/data target/bench/uniref50.fasta
	$(REFERENCE_PYTHON) benches/data_peers.py target/bench/data --ours target/debug/examples/throughput

.PHONY: plan
plan: libtpu ## compile ankh-large for a v4-64, no TPU needed: memory, time, where it goes
	$(PRETRAIN) plan --slice v4-64 --config ankh-large

# Each is compiled a few times, so all of them together take many hours.
PRESETS ?= ankh-base ankh-base-packed ankh-large ankh-large-packed
SLICES ?= v4-8 v4-16 v4-32 v4-64 v4-128 v4-256 v4-512 v4-1024
LIMIT ?= 6

.PHONY: layouts
layouts: libtpu ## search for the fastest layouts of PRESETS on SLICES
	cargo build --bin pretrain
	$(PYTHON) benches/layouts.py --limit $(LIMIT) --presets "$(PRESETS)" --slices "$(SLICES)"

.PHONY: goldens
goldens: $(REFERENCE)/ready $(TORCH)/ready ## make tests/golden anew: from transformers and optax, the tables of shardings, and docs/configuration.md
	$(REFERENCE_PYTHON) tests/golden/make.py
	$(REFERENCE_PYTHON) tests/golden/make_lora.py
	WRITE_GOLDENS=1 cargo test --test integration -- continuing::first
	$(REFERENCE_PYTHON) tests/golden/make_scores.py
	$(REFERENCE_PYTHON) tests/golden/make_measures.py
	PYTHONPATH=$(TRANSFORMERS_4) $(TORCH_PYTHON) tests/golden/make_directories.py
	$(TORCH_PYTHON) tests/golden/make_directories.py
	PYTHONPATH=$(TRANSFORMERS_4) $(TORCH_PYTHON) tests/golden/make_generation.py
	$(TORCH_PYTHON) tests/golden/make_convbert.py
	WRITE_GOLDENS=1 cargo test --test integration -- shardings:: reference:: submit::

.PHONY: check-export
check-export: plugin $(REFERENCE)/ready $(TORCH)/ready ## load exported models in transformers 4 and 5, checkpoints in zarr, and compare
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) tests/python/check_export.py
	$(TORCH_PYTHON) tests/python/check_directories.py --transformers4 $(TRANSFORMERS_4)
	@for checkpoint in demo/run/checkpoints/step_*; do \
	if [[ -d $$checkpoint ]]; then $(REFERENCE_PYTHON) tests/python/check_checkpoint.py $$checkpoint; fi; done

.PHONY: check-embed
check-embed: plugin $(REFERENCE)/ready $(TORCH)/ready ## compare embeddings with those of transformers' encoder, in Flax and in PyTorch
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) tests/python/check_embed.py
	$(TORCH_PYTHON) tests/python/check_embed.py --peer torch

.PHONY: check-score
check-score: plugin $(REFERENCE)/ready ## compare the scores of variants with a loop in transformers, on real proteins
	cargo build --bin pretrain
	$(REFERENCE_PYTHON) tests/python/check_score.py

.PHONY: check-deploy
check-deploy: $(DEPLOY)/ready ## check the scripts, units, manifests and commands of `pretrain submit`
	$(DEPLOY)/bin/python tests/python/check_deploy.py

.PHONY: check-events
check-events: plugin $(WATCHERS)/ready ## let TensorBoard and Prometheus read a killed and resumed run, and compare
	cargo build --bin pretrain
	XLA_FLAGS=--xla_backend_optimization_level=0 $(WATCHERS)/bin/python tests/python/check_events.py
	@if command -v promtool >/dev/null; then promtool check rules deploy/prometheus/alerts.yml \
	&& promtool test rules deploy/prometheus/alerts_test.yml; \
	else echo 'promtool is not installed: the alerts are not checked'; fi

.PHONY: check-pages
check-pages: plugin $(BROWSER)/ready ## open the pages of report and watch in Chromium, with real runs, and leave pictures
	cargo build --bin pretrain
	XLA_FLAGS=--xla_backend_optimization_level=0 $(BROWSER)/bin/python tests/browser/check_pages.py

.PHONY: plugin
plugin: ## fetch the pinned PJRT plugin for the CPU
	@$(PYTHON) deploy/fetch_plugin.py cpu

.PHONY: libtpu
libtpu: ## fetch the pinned libtpu, to compile for TPUs
	@$(PYTHON) deploy/fetch_plugin.py tpu

.PHONY: clean
clean: ## remove what was built, fetched and trained by make
	rm -rf target plugins demo

$(CR6261)/variants.csv: tests/python/cr6261.txt tests/python/cr6261.py
	rm -rf $(@D) && mkdir -p $(@D)
	$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	--dest $(@D) --requirement $<
	$(PYTHON) tests/python/cr6261.py $(@D)/ewht-*.whl $@

# The wheel is for one version of Python, which nothing runs here.
fetch_data = $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
  --dest $(@D)/packages
$(BENCHMARKS)/ready: tests/python/benchmark_data.py tests/python/benchmark_data.txt tests/python/benchmark_wheels.txt $(SAMPLE)
	mkdir -p $(@D)/packages
	$(fetch_data) --no-binary :all: --requirement tests/python/benchmark_data.txt
	$(fetch_data) --only-binary :all: --python-version 3.11 --platform manylinux2014_x86_64 \
	--requirement tests/python/benchmark_wheels.txt
	$(PYTHON) tests/python/benchmark_data.py $(@D)/packages $(SAMPLE) $(@D)
	touch $@

$(REFERENCE)/ready: tests/python/requirements.txt
	$(environment)
	touch $@

$(TORCH)/ready: tests/python/torch.txt tests/python/requirements.txt
	$(environment)
	$(TORCH_PYTHON) -m pip install --quiet --disable-pip-version-check --target $(TRANSFORMERS_4) \
	"$$(grep '^transformers==' tests/python/requirements.txt)"
	touch $@

$(DEPLOY)/ready: tests/python/deploy.txt
	$(environment)
	touch $@

$(WATCHERS)/ready: tests/python/watchers.txt
	$(environment)
	touch $@

$(SERVERS)/ready: tests/python/servers.txt
	$(environment)
	touch $@

$(TOOLS)/ready: tests/python/tools.txt
	$(environment) --require-hashes --no-deps
	touch $@

$(BROWSER)/ready: tests/browser/requirements.txt
	$(environment)
	touch $@
