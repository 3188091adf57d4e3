# Two commands matter: `make lab` opens the course, `make test` runs every test. Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.dev
# trained sweeps are kept here, so that a notebook opened again starts at once; remove the folder to train anew
export OOD_CACHE ?= $(CURDIR)/.cache
# threads that wait should sleep, not spin: several kernels share the machine in a classroom
export OMP_WAIT_POLICY ?= PASSIVE
# JupyterLab refuses to run as root (in a container, say) unless told; and it should not ask for news from the network
LAB_FLAGS ?= $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.news_url=None \
             --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate

.PHONY: lab test unit notebooks site slides reproduce beyond check order hub bench oldest newest lint clean help
help:            ## list the commands
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or newer is needed, this is %d.%d; try: make PYTHON=python3.12 lab" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@cp -r etc $(VENV)   # every kernel of the environment reads it
	@touch $@

$(DEV): $(READY) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -r requirements-dev.lock
	@touch $@

lab: $(READY)    ## set up, then open the course in JupyterLab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_FLAGS)

# one test process per core, each with one thread; the cells of a notebook stay together
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# a browser keeps an event loop going, in which other tests cannot start theirs: its tests run by themselves
BROWSER := $(addprefix tests/test_,browser.py site.py slides.py hub.py living_map_page.py living_map_lab.py world_lab.py)
test: $(DEV) lint unit   ## set up, then run every test: package, notebooks, browser
	$(PYTEST) --dist loadgroup $(BROWSER)
unit: $(DEV)
	$(PYTEST) --dist loadfile $(addprefix --ignore=,$(BROWSER))
	PYTHONPATH=tests $(PYTEST) -p kernel_memory --dist loadfile --nbval-lax --nbval-cell-timeout=120 --nbval-kernel-name=python3 notebooks

notebooks: $(DEV)   ## run every notebook from a clean start and store its outputs
	$(BIN)/python tools/run_notebooks.py

site: $(DEV)   ## make the reading edition in site/: web pages with moving sliders, without a kernel
	$(BIN)/python tools/make_site.py

slides: $(DEV)   ## make a talk of every notebook in site/slides/ (after `make site` its sliders move, too)
	$(BIN)/python tools/make_slides.py

reproduce: $(DEV)  ## run the paper's experiments and judge its claims (resumable, within an hour)
	$(BIN)/python tools/reproduce.py

beyond: $(DEV)  ## run the experiments that go beyond the paper (resumable)
	$(BIN)/python tools/reproduce.py --beyond

check: $(READY)  ## before a class: run every notebook, move every demo, look at memory and disk
	$(BIN)/python tools/check_class.py

order: $(DEV)  ## run the cells of every notebook in every order a reader may choose (some minutes each)
	$(BIN)/python tools/check_order.py

HUB_URL ?= http://127.0.0.1:8000
hub: $(DEV) $(BIN)/configurable-http-proxy  ## JupyterHub for a class on this machine: docs/classroom/README.md
	$(BIN)/jupyterhub -f docs/classroom/jupyterhub_config.py --url=$(HUB_URL)
$(BIN)/configurable-http-proxy: | $(DEV)
	npm install --global --prefix $(VENV) --silent configurable-http-proxy@5

bench: $(DEV)  ## print the speed ratios (slider latency, batched training, the GAN, polytopes) and the kernels' memory
	$(BIN)/python tools/bench_training.py
	$(BIN)/python tools/bench_polytopes.py
	$(BIN)/python tools/bench_gan.py
	$(BIN)/python tools/bench_latency.py
	$(BIN)/python tools/bench_map.py
	$(BIN)/python tools/bench_memory.py

# the package's tests in an environment of its own: $(call range-tests,environment,constraints of pip)
define range-tests
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet $(2) --editable '.[test,site]'
	@cp -r etc $(1)
	OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n auto --dist loadfile $(addprefix --ignore=,$(BROWSER))
endef
OLDEST := $(VENV)-oldest
NEWEST := $(VENV)-newest
oldest: $(DEV)  ## run the package's tests with the oldest versions that pyproject.toml allows
	$(BIN)/python tools/oldest.py > $(OLDEST).txt
	$(call range-tests,$(OLDEST),--constraint $(OLDEST).txt)
newest:          ## run the package's tests with the newest versions that pyproject.toml allows
	$(call range-tests,$(NEWEST),--upgrade)

lint: $(DEV)   ## check the style of the code, and its types
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

clean:           ## remove the environment and the trained sweeps
	rm -rf $(VENV) $(OLDEST) $(OLDEST).txt $(NEWEST) .cache
