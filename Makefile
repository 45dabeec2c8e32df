# make setup | demo | quickstart | verify | results | test | lint | lock | clean.  Needs Python 3.11 or 3.12 with its headers and venv, make and a C++ compiler; everything else goes into .venv.
# LATEST=1 beside setup or test: the newest versions that setup.cfg allows, in place of those of requirements.lock.
# ROBOSUITE=1.5 beside any of them: robosuite 1.5.2 in place of 1.4.1, in an environment of its own, .venv15.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
override SUFFIX := $(if $(filter 1.5,$(ROBOSUITE)),15)
VENV := $(CURDIR)/.venv$(SUFFIX)
override LOCK := requirements$(SUFFIX).lock
override OVERRIDES := overrides$(SUFFIX).txt
BIN := $(VENV)/bin
RUN := $(BIN)/python cli.py
INSTALLED := $(VENV)/.installed-$(if $(LATEST),latest,locked)
# The lock holds each package with all that it needs, and what builds those that come as source.
override LOCKED := --no-deps --build-constraints $(LOCK) -r $(LOCK) -e .
override NEWEST := --upgrade --override $(OVERRIDES) -e '.[dev]'
# make demo TASK=square: another of the policies in pretrained/, steered where an actor lies beside it.
TASK ?= lift
override SHIPPED := pretrained/$(TASK)/policy.safetensors
override ACTOR := $(wildcard pretrained/$(TASK)/sac_best.zip)
override OUT := quickstart# as configs/*quickstart*.yaml name it

.PHONY: setup demo quickstart quickstart-bc quickstart-dsrl verify results quickstart-videos test test-simulator lint lock clean

setup: $(INSTALLED)

# robomimic's egl_probe builds with CMake at install time and fails with CMake 4: a wheel of an older one goes on PATH.
$(INSTALLED): setup.cfg pyproject.toml $(OVERRIDES) $(LOCK)
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"found Python {v[0]}.{v[1]}, expected 3.11 or 3.12: make PYTHON=/path/to/python3.11") if v[:2] not in ((3, 11), (3, 12)) else None'
	$(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.installed*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(LATEST),--upgrade,-c $(LOCK)) uv 'cmake<4'
	PATH="$(BIN):$$PATH" VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode $(if $(LATEST),$(NEWEST),$(LOCKED))
	touch $@

# After a change of setup.cfg. Keeps the versions that still fit; LATEST=1 takes the newest of everything.
lock: setup
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip compile --quiet $(if $(LATEST),--upgrade) --universal --python-version 3.11 --override $(OVERRIDES) \
	    --extra dev --extra setup --custom-compile-command "make lock$(if $(SUFFIX), ROBOSUITE=1.5)" --annotation-style line setup.cfg -o $(LOCK)

# A policy that comes with the repository, plain and steered on the same 50 initial states; the video last, for rendering needs EGL or OSMesa.
demo: setup
	@test -f $(SHIPPED) || { echo "make demo: there is no $(SHIPPED). Those there: $(notdir $(patsubst %/,%,$(dir $(wildcard pretrained/*/policy.safetensors))))"; exit 2; }
	rm -rf demo/$(TASK)*
	@echo "demo, 1 of 2: 50 episodes of $(TASK), the policy as it was cloned$(if $(ACTOR), and then steered by RL from the same initial states)"
	$(RUN) evaluate --checkpoint $(SHIPPED) $(if $(ACTOR),--sac $(ACTOR)) --n_episodes 50 --output demo/$(TASK).json
	@echo "demo, 2 of 2: a video of one of them, into the page"
	$(RUN) report --run demo/$(TASK).json --videos 1 --output demo/$(TASK).html

# Plays the policies in pretrained/ again and compares with the figures beside them.
verify: setup
	$(BIN)/python -m benchmarks.verify_pretrained

# The success rates of README and docs/results.md from nothing, a sweep per task, each in results/; hours on a CPU. Again: it goes on.
# DATA=scripted | human | FILE.hdf5, TASKS='lift can'; SWEEP='--dry_run true' or other flags of `sweep`.
DATA ?= scripted
TASKS ?= $(if $(filter scripted human,$(DATA)),lift can square,$(error make results DATA=$(DATA): expected scripted, human, or a file and which task it is of, such as TASKS=square))
results: setup
	@test $(DATA) = scripted -o $(DATA) = human -o -f $(DATA) || { echo "make results: DATA is $(DATA): expected scripted, human, or a file that is there"; exit 2; }
	@set -e; for task in $(TASKS); do case $(DATA) in \
	    scripted) $(RUN) sweep --config configs/sweeps/results_$$task.yaml $(SWEEP);; \
	    human) $(RUN) sweep --config configs/sweeps/results_human.yaml --grid.task "[$$task]" --output results/human/$$task $(SWEEP); \
	        if [ $$task = square ]; then $(RUN) sweep --config configs/sweeps/results_human_steered.yaml $(SWEEP); fi;; \
	    *) $(RUN) sweep --config configs/sweeps/results_file.yaml --grid.task "[$$task]" --grid.dataset '["$(DATA)"]' \
	        --output results/$(basename $(notdir $(DATA)))/$$task $(SWEEP);; \
	esac; done

test: setup
	$(BIN)/python -m pytest

# What depends on the version of robosuite.
test-simulator: setup
	$(BIN)/python -m pytest tests/test_env_*.py tests/test_fused_stepping.py tests/test_expert_solves_its_task.py tests/test_adapted_demonstrations.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

quickstart: quickstart-bc quickstart-dsrl quickstart-videos
	@echo "See $(OUT)/report.html: results, plots, videos; and tensorboard --logdir $(OUT)/runs"

# Scripted demonstrations -> diffusion policy -> success rate, on Lift.
quickstart-bc: setup
	rm -rf $(OUT)/bc $(OUT)/runs
	$(RUN) collect --task lift --n_demos 200 --overwrite --output $(OUT)/lift_scripted.hdf5
	$(RUN) fit --config configs/bc_quickstart.yaml --dataset $(OUT)/lift_scripted.hdf5
	$(RUN) plot --run $(OUT)/runs --output $(OUT)/bc_training.png
	$(RUN) evaluate --checkpoint $(OUT)/bc/policy.safetensors --n_episodes 100 --output $(OUT)/bc_results.json

# A policy of only four demonstrations -> SAC in its noise space -> both side by side, on the same initial states.
quickstart-dsrl: setup
	rm -rf $(OUT)/bc_weak $(OUT)/dsrl
	$(RUN) collect --task lift --n_demos 4 --seed 1 --overwrite --output $(OUT)/lift_few.hdf5
	$(RUN) fit --config configs/bc_quickstart_weak.yaml
	$(RUN) dsrl --config configs/dsrl_quickstart.yaml --bc_checkpoint $(OUT)/bc_weak/policy.safetensors --output $(OUT)/dsrl
	$(RUN) plot --run $(OUT)/dsrl --output $(OUT)/dsrl_training.png
	$(RUN) evaluate --checkpoint $(OUT)/bc_weak/policy.safetensors --sac $(OUT)/dsrl/sac_best.zip --n_episodes 100 --output $(OUT)/dsrl_results.json
	$(RUN) report --run $(OUT)/bc $(OUT)/dsrl --output $(OUT)/report.html

# Last of all: rendering needs EGL or OSMesa, which not every machine has.
quickstart-videos: setup
	$(RUN) report --run $(OUT)/bc $(OUT)/dsrl --videos 2 --output $(OUT)/report.html

clean:
	rm -rf $(VENV) $(OUT) demo build *.egg-info
