# install · demo · test · check · bench. Each installs what it needs first; `make demo` and `make test` are enough to begin.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM = false

# Without a GPU the CPU build of torch is enough and gigabytes smaller. If PIP_FIND_LINKS names wheels, pip uses those.
ifeq ($(PIP_FIND_LINKS)$(shell command -v nvidia-smi 2>/dev/null),)
ifeq ($(shell uname -s),Linux)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif

.PHONY: install demo test test-lowest check check-wheel docs bench tables constraints clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/plankwise run recipes/demo.yaml --out runs/demo --resume

test: install
	$(BIN)/python -m pytest -n auto --dist loadfile

# The suite at the lowest versions that pyproject.toml declares. Old versions warn of deprecations, which are no errors here.
LOWEST := .venv-lowest
test-lowest:
	@command -v uv >/dev/null || { echo "make test-lowest needs uv: pip install uv"; exit 2; }
	uv venv --quiet --allow-existing --python 3.11 $(LOWEST)
	uv pip install --quiet --python $(LOWEST) --resolution lowest-direct --editable '.[dev]'
	$(LOWEST)/bin/python -m pytest -n auto --dist loadfile -o filterwarnings= $(TESTS)

check: install check-wheel docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py
	$(BIN)/python benchmarks/tables.py --check

# The site, in runs/site; a link that leads nowhere is an error, but with --quiet MkDocs counts none.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check-wheel: install
	$(BIN)/python tools/check_wheel.py

# The methods that fit into an hour on two cores; python benchmarks/methods.py davidson2017 runs all.
DAVIDSON = layer-subset distillation-logits theseus pruning-2x-repaired pruning-3x-cut pruning-3x-repaired \
  pruning-3x-recovered unstructured-80 vocabulary
PY := $(BIN)/python
# Reads the last line of a benchmark and writes results/CLASS/NAME.json, by the class of the machine.
STORE := $(PY) benchmarks/results.py

bench: install demo
	$(STORE) demo --file runs/demo/record.json
	$(PY) benchmarks/theseus_step.py | $(STORE) theseus_step
	$(PY) benchmarks/mimic_memory.py | $(STORE) mimic_memory
	$(PY) benchmarks/corpus_memory.py | $(STORE) corpus_memory
	$(PY) benchmarks/domain_step.py | $(STORE) domain_step
	$(PY) benchmarks/germeval2018.py | $(STORE) germeval2018
	$(PY) benchmarks/methods.py germeval2018 --epochs 1 | $(STORE) methods_germeval2018
	$(PY) benchmarks/methods.py davidson2017 --epochs 0.5 --only $(DAVIDSON) | $(STORE) methods_davidson2017
	$(PY) benchmarks/pruning_cost.py | $(STORE) pruning_cost
	$(PY) benchmarks/quantization.py | $(STORE) quantization_germeval2018
	$(PY) benchmarks/throughput.py --work runs/throughput | $(STORE) throughput
	$(PY) benchmarks/predict_overhead.py runs/throughput/base/bert6-pruned.openvino-int8 --rounds 1 \
	  | $(STORE) predict_overhead
	$(PY) benchmarks/gpu.py | $(STORE) gpu
	$(PY) -m pip install --quiet --no-deps --target runs/peer textbrewer
	$(PY) benchmarks/peer_textbrewer.py --peer runs/peer --epochs 1 | $(STORE) peer_textbrewer
	$(BIN)/plankwise domain recipes/domain_lm.yaml --out runs/domain --resume --json | $(STORE) domain_lm
	$(BIN)/plankwise domain recipes/domain_lm_clinical.yaml --out runs/domain-clinical --resume --json \
	  | $(STORE) domain_lm_clinical
	$(BIN)/plankwise study recipes/study_theseus.yaml --out runs/study --resume
	$(BIN)/plankwise study recipes/study_initialization.yaml --out runs/initialization --resume
	cp runs/study/plots/main_effects.png docs/results/study_theseus_main_effects.png
	$(PY) benchmarks/theseus_findings.py runs/study/study.json | $(STORE) study_theseus --here
	$(STORE) study_initialization --file runs/initialization/study.json --here
	$(PY) benchmarks/tables.py

tables: install
	$(BIN)/python benchmarks/tables.py

constraints:
	@command -v uv >/dev/null || { echo "make constraints needs uv: pip install uv"; exit 2; }
	{ echo "# Pinned versions for make install, on Python 3.10 to 3.14. Made by: make constraints"; \
	  uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate pyproject.toml \
	  | grep -v -e '^nvidia' -e '^triton' -e '^cuda' -e '^torch=='; echo "torch==2.13.0"; } > constraints.txt

clean:
	rm -rf $(VENV) $(LOWEST) runs dist .mypy_cache .pytest_cache .ruff_cache
