# A thin front of CMake: everything lands in build/, and the program is build/lore.
BUILD ?= build
CHECK_BUILD ?= build-check
JOBS ?= $(shell nproc)
export PYTHONDONTWRITEBYTECODE = 1

# Configure a build folder once, with further options; it looks after itself from then on.
configure = test -f $(1)/build.ninja || test -f $(1)/Makefile || \
    cmake -S . -B $(1) $(if $(shell command -v ninja),-G Ninja) $(2) > /dev/null
SOURCES = git ls-files -co --exclude-standard '*.c' '*.h' '*.cpp' '*.cu'
CTEST = ctest --output-on-failure -j $(JOBS)

.PHONY: all setup build cuda demo test serve bench check format install clean

all: build

setup:
	@scripts/setup

build: setup
	@$(call configure,$(BUILD))
	@cmake --build $(BUILD) --parallel $(JOBS)

# The same, and an error where the kernels for GPUs cannot be built.
cuda: setup
	@$(call configure,$(BUILD),-DLORE_CUDA=ON)
	@cmake $(BUILD) -DLORE_CUDA=ON > /dev/null
	@cmake --build $(BUILD) --parallel $(JOBS)

demo: build
	@scripts/demo

test: build
	@$(CTEST) --test-dir $(BUILD) -LE long

serve: build
	@LORE_DATA=$${LORE_DATA:-$(BUILD)/demo-data} $(BUILD)/lore serve

bench: build
	@$(BUILD)/lore bench

# What a change must pass before it is committed: format, rules of the house, sanitizers.
check: setup
	@command -v clang-format > /dev/null || { echo "make check needs clang-format" >&2; exit 1; }
	@$(SOURCES) | xargs clang-format --dry-run --Werror
	@python3 tests/tidy/tidy.py
	@$(call configure,$(CHECK_BUILD),"-DLORE_SANITIZE=address;undefined")
	@cmake --build $(CHECK_BUILD) --parallel $(JOBS)
	@$(CTEST) --test-dir $(CHECK_BUILD) -LE long

format:
	@$(SOURCES) | xargs clang-format -i

install: build
	@cmake --install $(BUILD)

clean:
	@rm -rf $(BUILD) $(CHECK_BUILD)
