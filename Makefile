# `make help` lists the targets. Two of them are all the set-up there is: `make serve`, `make test`.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3.11
HOST ?= 127.0.0.1
PORT ?= 3000
MLFLOW_PORT ?= 5000
NOTEBOOK_HOST ?= 127.0.0.1
NOTEBOOK_PORT ?= 8888
NOTEBOOKS ?= $(sort $(wildcard notebooks/*.ipynb))
BACKEND ?= docker
# One more than there are processors: a fifth of the time of a test is waiting for servers.
TEST_PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BUILD_FLAGS ?=
IMAGE ?= feedsieve:latest
IMAGE_SOURCE ?=
CONTAINER_FLAGS ?=
IMAGE_CHECK ?=
BENCHMARK ?=
LOADTEST ?=
SOAK ?=
FUZZ ?=
LABEL_STUDIO_PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
export LABEL_STUDIO ?= .venv-labelstudio
# Python compiles what it imports; compiling all of it would take as long as installing it. Where Python must not
# keep what it compiled, each start takes 6 seconds instead of 3.
unexport PYTHONDONTWRITEBYTECODE
# uv installs in a tenth of pip's time. It reads none of pip's settings; those that say where packages are go along.
UV_PIP = eval "$$($(BIN)/python -m pip config list | sort --reverse | sed -n \
	-e 's/^[^=]*\.index-url=/export UV_DEFAULT_INDEX=/p' \
	-e 's/^[^=]*\.extra-index-url=/export UV_INDEX_STRATEGY=unsafe-best-match UV_INDEX=/p' \
	-e 's/^[^=]*\.find-links=/export UV_FIND_LINKS=/p' \
	-e 's/^[^=]*\.trusted-host=/export UV_INSECURE_HOST=/p' \
	-e 's/^[^=]*\.cert=/export SSL_CERT_FILE=/p' \
	-e 's/^[^=]*\.no-cache-dir=/export UV_NO_CACHE=/p')" && $(BIN)/uv pip
INSTALL = $(UV_PIP) install --quiet --python $(BIN)/python --constraint constraints.txt

# No telemetry of BentoML, transformers and MLflow.
export BENTOML_DO_NOT_TRACK ?= True
export DISABLE_TELEMETRY ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export TOKENIZERS_PARALLELISM ?= true

.PHONY: help coverage setup sample chosen labelstudio features train mlflow notebook html screenshots docs promote serve test test-lab lint format bento package wheel container image-check sbom audit build benchmark loadtest soak fuzz cluster constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/train ## install into .venv what training and serving need

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt uv

# Renewed when the content changes: a checkout that is merely newer than an image installs nothing.
$(VENV)/requirements: $(BIN)/uv FORCE
	@cat pyproject.toml constraints.txt | cmp --silent - $@ || cat pyproject.toml constraints.txt > $@

FORCE:

# The stamps: what is installed.
$(VENV)/train: $(VENV)/requirements
	@echo "installing what training and serving need: a minute or two"
	@$(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/lab: $(VENV)/requirements
	@echo "installing what the lab needs: a minute or two"
	@$(INSTALL) --editable '.[lab]'
	@touch $@ $(VENV)/train

$(VENV)/dev: $(VENV)/requirements
	@echo "installing what tests need: a minute or two"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/train $(VENV)/lab $(VENV)/release

$(VENV)/release: $(VENV)/requirements
	@echo "installing what a release needs: a minute or two"
	@$(INSTALL) --editable '.[train,release]'
	@touch $@ $(VENV)/train

$(VENV)/screenshots: $(VENV)/requirements
	@echo "installing what the lab and its pictures need: a minute or two"
	@$(INSTALL) --editable '.[screenshots]'
	@touch $@ $(VENV)/train $(VENV)/lab

$(VENV)/docs: $(VENV)/requirements
	@echo "installing what the documentation site needs: a minute or two"
	@$(INSTALL) --editable '.[docs]'
	@touch $@ $(VENV)/train $(VENV)/lab $(VENV)/dev $(VENV)/screenshots $(VENV)/release

# Label Studio pins other versions than feedsieve does, so it has an environment of its own.
$(LABEL_STUDIO)/ready: labeling/requirements.txt
	@echo "installing Label Studio: a minute or two, 1 GB"
	$(PYTHON) -m venv $(LABEL_STUDIO)
	@$(UV_PIP) install --quiet --python $(LABEL_STUDIO)/bin/python --requirement labeling/requirements.txt
	@touch $@

# Without --force: messages.db may hold labels of people and scores by now.
sample: $(VENV)/train ## make the sample chat in data/sample/, if there is none
	$(BIN)/python -m data.generate

chosen: | $(VENV)/train
	@$(BIN)/python -m data.choose --quiet

ifneq ($(FEEDSIEVE_FEATURES),)
train: features # that it reads them from
endif
train: $(VENV)/train chosen ## train, save the models, write reports/; like serve, notebook and features, on your own data in data/, else on the sample
	@$(BIN)/python -m train

features: $(VENV)/lab chosen ## compute what Feast has not of the messages yet
	@$(BIN)/python -m train.features

serve: $(VENV)/train chosen ## serve on HOST:PORT (127.0.0.1:3000) the champion or the newest model, after training once if there is none
ifeq ($(FEEDSIEVE_MODEL),)
	@$(BIN)/python -m train --unless-trained
else
	@$(BIN)/python -m data.choose
endif
	$(BIN)/feedsieve serve --host $(HOST) --port $(PORT)

labelstudio: $(VENV)/lab $(LABEL_STUDIO)/ready ## label messages in Label Studio on LABEL_STUDIO_PORT (8080)
	$(BIN)/python -m labeling.server --port $(LABEL_STUDIO_PORT)

# A thread each: two processes of two threads on two cores wait for one another most of the time. In order of
# names: by number of tests, the longest file would run last and alone.
test: $(VENV)/dev ## run the tests, but for those of the lab
	OMP_NUM_THREADS=1 FEEDSIEVE_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

coverage: $(VENV)/dev ## run the tests and print which lines they cover
	OMP_NUM_THREADS=1 FEEDSIEVE_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
		--cov feedsieve --cov train --cov export --cov-report term-missing:skip-covered $(TESTS)

test-lab: $(VENV)/dev $(VENV)/screenshots $(LABEL_STUDIO)/ready ## run the tests of the lab: the course in a browser, Label Studio, Feast, promotion, workflows
	$(BIN)/python -m pytest -m lab $(TESTS)

lint: $(VENV)/dev ## check style, types, layers and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet .github

# Warnings are errors. The page of commands runs each with --help, which is most of the time.
docs: $(VENV)/docs ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "to read it at http://localhost:8000: $(BIN)/python -m http.server --directory site 8000"

format: $(VENV)/dev ## mend style where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

promote: $(VENV)/train chosen ## make the newest model champion, if it is shown not to be worse
	@$(BIN)/python -m train.promote --out reports/promotion.md

bento: $(VENV)/train ## pack the service and its two models as a Bento: FEEDSIEVE_MODEL, or the champion, or the newest
	FEEDSIEVE_MODEL=$$($(BIN)/python -c 'from feedsieve.registry import current_model; print(current_model())') \
		$(BIN)/bentoml build

# BentoML takes a relative path for one from the root.
package: bento ## write the newest Bento to dist/feedsieve.bento
	mkdir -p dist
	rm -f dist/feedsieve.bento
	$(BIN)/bentoml export feedsieve:latest "$(CURDIR)/dist/feedsieve.bento"

# Buildah and podman would leave out the health check in OCI's own format.
container: package ## make the container image IMAGE (feedsieve:latest) of the newest Bento, by BACKEND (docker)
	rm -rf build/image
	mkdir -p build/image/bento
	tar -xf dist/feedsieve.bento -C build/image/bento
	cp deploy/image/* build/image/
	BUILDAH_FORMAT=docker $(BACKEND) build --tag $(IMAGE) --build-arg SOURCE=$(IMAGE_SOURCE) \
		--build-arg VERSION=$$($(BIN)/python -c 'import feedsieve; print(feedsieve.__version__)') \
		--build-arg REVISION=$$(sed -n 's/^  commit: //p' build/image/bento/bento.yaml) \
		$(CONTAINER_FLAGS) build/image

# As root on a machine with buildah, whose store has the image and its base.
image-check: $(VENV)/dev ## check the image IMAGE in buildah's store: labels, size, start, scores, SIGTERM under load
	$(BIN)/python -m deploy.image.check --image localhost/$(IMAGE) $(IMAGE_CHECK)

# setuptools would add what an earlier build left in build/.
wheel: $(VENV)/train ## write the wheel to dist/
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

sbom: $(VENV)/release package ## list what the newest Bento installs, as CycloneDX, in dist/feedsieve.cdx.json
	tar -xOf dist/feedsieve.bento ./env/python/requirements.txt | $(BIN)/cyclonedx-py requirements - \
		--pyproject pyproject.toml --output-reproducible --output-file dist/feedsieve.cdx.json

audit: $(VENV)/release ## look up the versions in constraints.txt in PyPI's database of vulnerabilities
	$(BIN)/python -m deploy.audit

build: ## make the image of the dev container, feedsieve-lab, by BACKEND (docker): all of the lab, for a mounted checkout
	$(BACKEND) build --file deploy/image/Dockerfile --target lab --tag feedsieve-lab \
		--build-arg UID=$$(id -u) --build-arg PIP_EXTRA_INDEX_URL $(BUILD_FLAGS) .

benchmark: $(VENV)/dev ## measure engine, service, feed and start beside others, and write docs/performance.md: an hour
	$(BIN)/python -m loadtests.benchmark $(BENCHMARK)

loadtest: $(VENV)/dev ## load a server that this starts, write reports/loadtest.html, fail if a threshold is broken
	$(BIN)/python -m loadtests $(LOADTEST)

soak: $(VENV)/dev ## load a server for ten minutes, fail if its memory grows by more than 5 %
	$(BIN)/python -m loadtests.soak $(SOAK)

fuzz: $(VENV)/dev ## send a server ten minutes of requests made up from its OpenAPI document
	$(BIN)/python -m loadtests.fuzz $(FUZZ)

cluster: $(VENV)/lab ## start a Dask scheduler and two workers, for --cluster; dashboard on 127.0.0.1:8787
	$(BIN)/python -m train.cluster

mlflow: $(VENV)/lab ## look at what was trained, at 127.0.0.1:MLFLOW_PORT (5000)
ifeq ($(filter http%,$(MLFLOW_TRACKING_URI)),)
	@mkdir -p .mlflow
	@$(BIN)/python -c "from train.tracking.mlflow_run import runs_page as page; \
		print('the runs of training:', page('http://127.0.0.1:$(MLFLOW_PORT)'))"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --workers 1 \
		--host 127.0.0.1 --port $(MLFLOW_PORT) --artifacts-destination .mlflow/artifacts \
		--backend-store-uri '$(or $(MLFLOW_TRACKING_URI),sqlite:///.mlflow/mlflow.db)'
else
	@echo "it is tracked by a server, which shows it: $(MLFLOW_TRACKING_URI)"
endif

# The plugin that is disabled, in .venv alone, asks for news and newer versions; the extension manager
# would ask PyPI.
notebook: $(VENV)/lab chosen ## explore, label, train, find errors in JupyterLab, at NOTEBOOK_HOST:NOTEBOOK_PORT (127.0.0.1:8888)
	@$(BIN)/python -m data.choose
	$(BIN)/jupyter labextension disable --level=sys_prefix \
		@jupyterlab/apputils-extension:announcements
	$(BIN)/jupyter lab --allow-root --ip $(NOTEBOOK_HOST) --port $(NOTEBOOK_PORT) \
		--ServerApp.port_retries=0 --ServerApp.root_dir=. --LabApp.extension_manager=readonly \
		--LabApp.default_url=/lab/tree/notebooks/01_explore.ipynb

html: $(VENV)/lab chosen ## run NOTEBOOKS (all) and write them with their plots to reports/notebooks/ as HTML
	TQDM_DISABLE=1 $(BIN)/jupyter nbconvert --to html --execute --output-dir reports/notebooks $(NOTEBOOKS)

screenshots: $(VENV)/screenshots $(LABEL_STUDIO)/ready ## take the pictures of the docs anew, with Chromium, of the sample corpus
	$(BIN)/python -m docs.screenshots

constraints: ## install the newest versions and pin them in constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV_PIP) install --quiet --python $(BIN)/python --editable '.[docs,screenshots]'
	{ head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > constraints.new
	mv constraints.new constraints.txt

clean: ## remove what the targets made, but not data, models or Bentos
	rm -rf $(VENV) $(LABEL_STUDIO) reports build site .pytest_cache .mypy_cache .ruff_cache *.egg-info
