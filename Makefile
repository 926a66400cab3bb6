# The verbs of the project. Every one makes .venv and installs into it when needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
SITE := $(VENV)/.site
NNUNET := $(VENV)/.nnunet
NIIVUE := autospine/report/page/niivue

.DEFAULT_GOAL := help
.PHONY: help install demo starter test test-all test-gpu check format docs site-tools release bench-data bench-network bench-planner bench-inference bench-training bench-gpu bench-gpu-count bench-house bench-first-aid bench-daily bench-evidence bench-designs bench-anatomy bench-real bench-tuned bench-metrics bench-report vendor-niivue clean bench-versions bench-trust fuzz

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with AutoSpine and its development tools

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "AutoSpine needs Python 3.11 or later; say which with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing AutoSpine and its tools into $(VENV); that takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## synthetic spines -> plan -> train -> predict -> evaluate, into autospine-demo/
	$(BIN)/autospine demo

test: $(STAMP) ## the test suite
	$(BIN)/python -m pytest -q -n 2

test-all: $(STAMP) ## the slow tests too, and new random examples
	$(BIN)/python -m pytest -q -n 2 -m "not gpu" --hypothesis-profile=exploring

test-gpu: $(STAMP) ## compare a GPU with the CPU, in two minutes
	$(BIN)/python -m pytest -q -m gpu

check: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite the code in the project's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(SITE) ## make the reference pages of the commands, and of all pages a site, in site/
	$(BIN)/python -m autospine.cli.reference docs/reference
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/doctrees . site
	@echo "open site/index.html"

site-tools: $(SITE)

$(SITE): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(SITE)

$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	@touch $(PEERS)

# nnU-Net requires timm for networks that nothing here builds, and with it a torchvision that fails beside a CPU
# build of PyTorch; so it comes without its requirements, but for those that are imported.
$(NNUNET): $(PEERS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps nnunetv2 acvl-utils \
		batchgeneratorsv2 dynamic-network-architectures connected-components-3d tqdm seaborn
	@touch $(NNUNET)

starter: $(STAMP) ## train the starter from phantoms alone, in hours, into autospine-starter/; goes on where it was stopped
	$(BIN)/python -m autospine.pipeline.starter_training autospine-starter

release: $(STAMP) ## build the wheel and the source archive, check them, and run the wheel in an empty environment; into dist/
	$(BIN)/python tests/release.py

bench-data: $(NNUNET) ## time preprocessing and patches against nnU-Net and batchgenerators; into docs/results/data.md
	$(BIN)/python tests/benchmarks/data.py --write docs/results/data.md

bench-real: $(STAMP) ## score the starter on every labelled real case; into docs/results/real.md, with pictures
	$(BIN)/python tests/benchmarks/real.py starter --write docs/results/real.md --pictures docs/images

bench-tuned: $(STAMP) ## train on real cases from the starter and from nothing, in an hour and a half; into docs/results/tuned.md
	$(BIN)/python tests/benchmarks/tuned.py --write docs/results/tuned.md

bench-evidence: $(STAMP) ## ask whether fusion and adaptive attention earn their place, in many hours; into docs/results/evidence.md
	$(BIN)/python tests/benchmarks/evidence.py --write docs/results/evidence.md

bench-designs: $(STAMP) ## train designs of the mechanisms and of full resolution at equal steps, in hours; into docs/results/designs.md
	$(BIN)/python tests/benchmarks/designs.py --write docs/results/designs.md

bench-anatomy: $(STAMP) ## name the vertebrae of 300 real CT and 200 phantoms, and mend faults in real masks; into docs/results/anatomy.md
	$(BIN)/python tests/benchmarks/anatomy.py --write docs/results/anatomy.md $(if $(LUMBAR),--lumbar $(LUMBAR))

bench-counting: $(STAMP) ## name the levels of held-out lumbar MR with what the starter counts, of LUMBAR="MODEL ..."; into docs/results/counting.md
	$(BIN)/python tests/benchmarks/anatomy_lumbar.py $(LUMBAR) --write docs/results/counting.md

bench-network: $(PEERS) ## time the network against MONAI and OpenVINO; the table goes to docs/results/network.md
	$(BIN)/python tests/benchmarks/network.py --write docs/results/network.md

bench-planner: $(STAMP) ## predicted against measured memory; the table goes to docs/results/planner.md
	$(BIN)/python tests/benchmarks/planner.py --write docs/results/planner.md

bench-inference: $(NNUNET) ## memory and time of prediction; the tables go to docs/results/inference.md
	$(BIN)/python tests/benchmarks/inference.py --write docs/results/inference.md

bench-training: $(NNUNET) ## kill a training ten times; two hours of training against nnU-Net and MONAI
	$(BIN)/python tests/benchmarks/training.py --record docs/results/training.json --write docs/results/training.md

bench-gpu: $(NNUNET) ## parity, time, memory, prediction and training on a GPU, in half an hour; into docs/results/gpu.md
	$(BIN)/python tests/benchmarks/gpu.py --record docs/results/gpu.json --write docs/results/gpu.md

bench-gpu-count: $(STAMP) ## count what a training step asks of a GPU, without one; into docs/results/gpu-count.md
	$(BIN)/python tests/benchmarks/gpu_figures.py --write docs/results/gpu-count.md

bench-house: $(STAMP) ## count imports, names and axes, and time mistakes; the table goes to docs/results/house.md
	$(BIN)/python tests/benchmarks/house.py --write docs/results/house.md

bench-first-aid: $(STAMP) ## give every command odd, damaged and hostile inputs, on a busy machine too; into docs/results/first-aid.md
	$(BIN)/python tests/benchmarks/first_aid.py --write docs/results/first-aid.md

bench-daily: $(STAMP) ## train for a quarter of an hour on real lumbar MR and measure what a user sees; into docs/results/daily.md
	$(BIN)/python tests/benchmarks/daily.py --write docs/results/daily.md

bench-metrics: $(STAMP) ## time every metric on 512 x 512 x 400 voxels with 26 labels; into docs/results/metrics.md
	$(BIN)/python tests/benchmarks/metrics.py --write docs/results/metrics.md

bench-report: $(STAMP) ## write the report of 20 phantoms, and open it in Chromium; into docs/results/report.md
	$(BIN)/python tests/benchmarks/report.py --write docs/results/report.md

fuzz: $(STAMP) ## change files for ten minutes per reader, and see that each is read or refused in words
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python tests/benchmarks/fuzz.py

bench-trust: $(STAMP) ## kill every command, give it damaged and hostile input, run it on a thousand cases; into docs/results/trust.md
	$(BIN)/python tests/benchmarks/trust.py --write docs/results/trust.md

vendor-niivue: ## put the viewer of the report's volumes in its place again, and check it; needs npm
	@folder=$$(mktemp -d) && npm pack --silent --pack-destination "$$folder" @niivue/niivue@0.69.0 >/dev/null \
		&& tar -xzf "$$folder"/*.tgz -C "$$folder" package/dist/niivue.umd.js \
		&& echo "$$(sed -n 's/^SHA-256 //p' $(NIIVUE)/README.md)  $$folder/package/dist/niivue.umd.js" | sha256sum -c --quiet \
		&& cp "$$folder/package/dist/niivue.umd.js" $(NIIVUE)/ && rm -r "$$folder" && echo "$(NIIVUE)/niivue.umd.js is NiiVue 0.69.0"

bench-versions: $(STAMP) ## compare with the checkout OTHER=FOLDER of another version: losses, speed, memory, Dice
	$(BIN)/python tests/benchmarks/versions.py $(OTHER)

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site
