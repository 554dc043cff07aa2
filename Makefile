# SPDX-License-Identifier: GPL-2.0
#
# What can be made here: 'make' prints it. The work is done in tools/cdm/.

MAKEFLAGS += --no-print-directory --no-builtin-rules
T := tools/cdm
export KDIR

help:
	@echo 'CDM: coherent device memory for Linux'
	@echo
	@echo '  make run          build the kernel, boot it with a device, tell the story'
	@echo '  make test         KUnit and kselftests under the debugging kernel'
	@echo '  make shell        a shell in the guest'
	@echo "  make vm CMD='...' a command in the guest ($(T)/vm --help: more)"
	@echo '  make oot          drivers and samples out of tree, as modules in build/oot'
	@echo '  make objcmp       with CDM=n: is the code of every touched object as it was?'
	@echo '  make bench        what it costs: instructions against the base kernel'
	@echo '  make bench-check  do the results of make bench stay within the budget?'
	@echo '  make gates        open each gate of the kernel: does a test fail for it?'
	@echo '  make control      the denial tests where nothing is denied: each has to fail'
	@echo "  make test-mm      the kernel's own mm selftests, against the base kernel's results"
	@echo '  make soak         stressors against devices that come and go, for SECONDS=600'
	@echo '  make deb          Debian packages, in build/deb: cdm-tools'
	@echo '  make distro       a Debian 13 with systemd and udev: are they as they should be?'
	@echo '  make lint         checkpatch, rustfmt, clippy, sparse, kernel-doc, shellcheck'
	@echo
	@echo '  make setup        only the toolchain root, in the cache directory'
	@echo '  make kernel       only the kernels of run and test'
	@echo '  make refresh      commits made in build/linux, back into patches/'
	@echo '  make steps        compile after each commit of the series, with CDM=y and =n'
	@echo '  make series       the series to mail, in build/series; checked with git am'
	@echo
	@echo '  make clean        remove what was built, keep the kernel tree and the cache'
	@echo '  make distclean    remove build/ and the cache'
	@echo
	@echo '  KDIR=DIR          take the source of Linux 7.3 from DIR'
	@echo '  BENCH="--boots 1" make bench: options of tools/cdm/bench/bench'
	@echo '  GATES="gup.c"     make gates: only the gates of such names'
	@echo '  TESTS="a b"       make test, make control: only these kselftests; test-mm: these'
	@echo '                    categories'
	@echo '  FRESH=1           make lint: look again at what has not changed'

setup:
	@$(T)/build/setup

run:
	@$(T)/guest/run

test: setup
	@$(T)/build/kernel test
	@$(T)/build/kselftest
	@$(T)/check/test $(TESTS)

shell: setup
	@$(T)/build/kernel run
	@$(T)/vm

vm: setup
	@$(T)/build/kernel run
	@$(T)/vm -- sh -c '$(subst ','\'',$(CMD))'

test-mm: setup
	@$(T)/check/test-mm $(TESTS)

gates: setup
	@$(T)/gates/gates $(GATES)

control: setup
	@$(T)/check/control $(TESTS)

soak: setup
	@$(T)/check/soak $(or $(SECONDS),600)

deb: deb-tools

deb-tools:
	@$(T)/build/deb tools

distro: setup
	@$(T)/build/kernel bench
	@$(T)/build/deb tools
	@$(T)/distro/distro

lint: setup
	@$(T)/check/lint $(if $(FRESH),--fresh)

objcmp: setup
	@$(T)/check/objcmp

bench: setup
	@$(T)/bench/bench $(BENCH)

bench-check:
	@$(T)/bench/bench --check

bench-doc:
	@$(T)/bench/bench --doc Documentation/mm/cdm-cost.rst

kernel: setup
	@$(T)/build/kernel run
	@$(T)/build/kernel test

oot: setup
	@$(T)/build/kernel test
	@$(T)/build/oot

refresh: setup
	@$(T)/build/refresh

steps: setup
	@$(T)/build/steps

series: setup
	@$(T)/build/series

clean:
	@$(T)/build/clean

distclean:
	@$(T)/build/clean --all

.PHONY: help setup run test gates control test-mm shell vm objcmp soak deb deb-tools distro lint kernel oot refresh steps series clean distclean
