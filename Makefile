# Every target builds .venv by itself; running it again does nothing it need not do.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
# Modules are compiled when they are first imported: most never are, and compiling all took half of an installation.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile -c $(CONSTRAINTS)
STAMP := $(VENV)/.installed
LEAN := $(VENV)/.demo
PEERS := $(VENV)/.peers
DOCS := $(VENV)/.docs
CLUSTERS := $(VENV)/.clusters
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal
export HF_HUB_OFFLINE ?= 1

.PHONY: help demo picture test test-all clusters lint types check dist oldest bench bench-training bench-throughput exactness study study-1 rlvr gpu docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   a shift, the set that repairs it, and wrong labels: writes runs/demo/report.html and demo.png (five minutes; the first time as many more, to install)"
	@echo "make picture  the demo's picture and its numbers, into docs"
	@echo "make test   run the test suite (some twenty minutes); ROOM=dro_core: one package or room"
	@echo "make test-all  the exhaustive rest too: more seeds, shapes and kills (half an hour)"
	@echo "make clusters  the same results on Ray and Dask, two workers each on this machine"
	@echo "make check  lint, format, types, forms of .github"
	@echo "make docs   the site, into build/site: strict, offline (a minute)"
	@echo "make dist   build both packages into dist and try them (two minutes); TAG=v1.2.3: as that release"
	@echo "make exactness  measure gradient errors by launcher, write docs/exactness.md (10 minutes; DeepSpeed where installed)"
	@echo "make study DATA=FOLDER  the second edition of the study, on real preferences (an hour, goes on); STAGE=plan, entry, core, final, whole; ARGS: see its --help"
	@echo "make study-1  the first edition, docs/results/study-1.md (ten minutes); DATA=FOLDER: on real preferences too (two hours)"
	@echo "make rlvr   the bandits of docs/results/verifiable.md (five minutes); FULL=1: transformers too (hours, goes on)"
	@echo "make bench  race the solvers against other packages, write docs/benchmarks.md (15 minutes)"
	@echo "make gpu    what only a GPU can tell, write docs/gpu.md (8 minutes); installs nothing; ARGS=--dry-run: on a CPU"
	@echo "make bench-training  what a robust step costs, write docs/training-cost.md (10 minutes)"
	@echo "make bench-throughput  a step beside TRL and transformers, into docs/training-cost.md (15 minutes; first: robust-rlhf models fetch smollm2, minilm)"

# What the demo needs. torch first and pinned: left to a resolver it brings several gigabytes of another build.
$(LEAN): pyproject.toml constraints.txt
	@echo "Installing the package into $(VENV): minutes and some 2 GB on disk, over 5 GB more where torch comes with CUDA"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e ".[llm]"
	touch $@

$(STAMP): $(LEAN)
	@echo "Installing all extras and the tools for tests into $(VENV): minutes and some 1 GB on disk"
	$(INSTALL) -e ".[test]"
	touch $@

# The other solvers, for the races only.
$(PEERS): $(STAMP)
	$(INSTALL) -e ".[peers]"
	$(INSTALL) --no-deps dro
	touch $@

# Sphinx, for the site only.
$(DOCS): $(STAMP)
	$(INSTALL) -e ".[docs]"
	touch $@

# Ray and Dask, for tests of clusters only.
$(CLUSTERS): $(STAMP)
	$(INSTALL) -e ".[cluster]"
	touch $@

# Strict: a link that leads nowhere, a public name without docstring or page, a figure that fails end it.
docs: $(DOCS)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --nitpicky --keep-going \
		--builder html --doctree-dir build/doctrees docs build/site

demo: $(LEAN)
	$(BIN)/robust-rlhf demo --output runs/demo --resume

# What README shows.
picture: demo
	cp runs/demo/demo.png runs/demo/demo.json docs/

# ROOM: one package, or one room of llm as llm/policy. SHARE=I/N: besides, the I-th of N shares of the exhaustive tests.
TESTS_dro_core := tests/core
TESTS_synthetic := tests/theory
TESTS_proofs_check := tests/theory
FOUND = $(wildcard $(ROOM) $(TESTS_$(ROOM)) tests/$(ROOM))
PATHS = $(if $(ROOM),$(or $(FOUND),$(error ROOM is dro_core, synthetic, proofs_check, llm, or a room of llm such as llm/policy)))
test: $(STAMP)
	$(PYTEST) $(if $(SHARE),--share $(SHARE),-m "not exhaustive") $(PATHS)

test-all: $(STAMP)
	$(PYTEST) $(PATHS)

clusters: $(CLUSTERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/test_clusters.py tests/llm/commands/test_cluster_tutorial.py

bench: $(PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/solvers.py

exactness: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/exactness.py

bench-training: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training.py

bench-throughput: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/throughput.py

# No stamp: on a machine with a GPU it takes the Python that is there, with what it has.
gpu:
	$(PYTHON) benchmarks/gpu/run.py $(ARGS)

# final reads the test set, once: not before everything is trained.
study: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.second_edition.study \
		--data $(or $(DATA),$(error DATA is a folder of real preferences; make study-1 has the first edition)) --stage $(or $(STAGE),core) $(ARGS)

study-1: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.robustness.study $(if $(DATA),--data $(DATA))

rlvr: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.verifiable.study $(if $(FULL),--transformer)

FORM := $(BIN)/check-jsonschema --quiet --builtin-schema vendor
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(FORM).github-workflows .github/workflows/*.yml
	$(FORM).github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(FORM).github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(FORM).dependabot .github/dependabot.yml
	$(FORM).citation-file-format CITATION.cff

types: $(STAMP)
	$(BIN)/basedpyright

check: lint types

dist: $(STAMP)
	rm -rf dist
	$(if $(TAG),$(BIN)/python .github/changes.py $(TAG))
	$(BIN)/python -m build --no-isolation
	$(if $(TAG),test -f dist/robust_rlhf-$(TAG:v%=%).tar.gz)
	DIST=dist $(PYTEST) tests/test_packaging.py

# The oldest versions that pyproject.toml allows, for CONSTRAINTS=build/oldest.txt; needs uv.
oldest:
	mkdir -p build
	uv pip compile --quiet --resolution lowest-direct --extra test --output-file build/oldest.txt pyproject.toml

clean:
	rm -rf $(VENV) build dist runs
