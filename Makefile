# install · demo · test · check · bench. Each sets up what it needs; `make demo` and `make test` are all a newcomer types.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TOKENIZERS_PARALLELISM = false

# Without a GPU the CPU build of torch does, which is gigabytes smaller. Where pip is told to find wheels elsewhere
# (PIP_FIND_LINKS, an offline mirror), that place decides.
ifeq ($(PIP_FIND_LINKS)$(shell command -v nvidia-smi 2>/dev/null),)
ifeq ($(shell uname -s),Linux)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
endif
endif

.PHONY: install demo test check bench tables constraints clean

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

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py
	$(BIN)/python benchmarks/tables.py --check

# Of the methods those that fit into an hour; python benchmarks/methods.py davidson2017 takes them all.
DAVIDSON = layer-subset distillation-logits theseus pruning-2x-repaired pruning-3x-cut pruning-3x-repaired \
  pruning-3x-recovered unstructured-80 vocabulary

bench: install demo
	mkdir -p results && cp runs/demo/record.json results/demo.json
	$(BIN)/python benchmarks/theseus_step.py | tail -n 1 > results/theseus_step.json
	$(BIN)/python benchmarks/mimic_memory.py | tail -n 1 > results/mimic_memory.json
	$(BIN)/python benchmarks/corpus_memory.py | tail -n 1 > results/corpus_memory.json
	$(BIN)/python benchmarks/domain_step.py | tail -n 1 > results/domain_step.json
	$(BIN)/python benchmarks/germeval2018.py
	$(BIN)/python benchmarks/methods.py germeval2018 --epochs 1
	$(BIN)/python benchmarks/methods.py davidson2017 --epochs 0.5 --only $(DAVIDSON)
	$(BIN)/python benchmarks/pruning_cost.py | tail -n 1 > results/pruning_cost.json
	$(BIN)/python benchmarks/quantization.py
	$(BIN)/python benchmarks/throughput.py --work runs/throughput | tail -n 1 > results/throughput.json
	$(BIN)/python benchmarks/predict_overhead.py runs/throughput/base/bert6-pruned.openvino-int8 --rounds 1 | tail -n 1 \
	  > results/predict_overhead.json
	$(BIN)/python benchmarks/gpu.py | tail -n 1 > results/gpu.json
	$(BIN)/python -m pip install --quiet --no-deps --target runs/peer textbrewer
	$(BIN)/python benchmarks/peer_textbrewer.py --peer runs/peer --epochs 1
	$(BIN)/plankwise domain recipes/domain_lm.yaml --out runs/domain --resume --json > results/domain_lm.json
	$(BIN)/plankwise domain recipes/domain_lm_clinical.yaml --out runs/domain-clinical --resume --json \
	  > results/domain_lm_clinical.json
	$(BIN)/plankwise study recipes/study_theseus.yaml --out runs/study --resume
	$(BIN)/plankwise study recipes/study_initialization.yaml --out runs/initialization --resume
	mkdir -p docs/plots && cp runs/study/plots/main_effects.png docs/plots/study_theseus_main_effects.png
	$(BIN)/python benchmarks/theseus_findings.py runs/study/study.json > results/study_theseus.json
	cp runs/initialization/study.json results/study_initialization.json
	$(BIN)/python benchmarks/tables.py

tables: install
	$(BIN)/python benchmarks/tables.py

constraints:
	@command -v uv >/dev/null || { echo "make constraints needs uv: pip install uv"; exit 2; }
	{ echo "# Pinned versions for make install, on Python 3.10 to 3.13. Made by: make constraints"; \
	  uv pip compile --quiet --universal --python-version 3.10 --extra dev --no-header --no-annotate pyproject.toml \
	  | grep -v -e '^nvidia' -e '^triton' -e '^cuda' -e '^torch=='; echo "torch==2.13.0"; } > constraints.txt

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache
