# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the scripts of this directory share: where things are, stage lines, logs.
# To be sourced.

set -euo pipefail

# Directories. CDM_CACHE and CDM_BUILD can be set to work beside the usual ones, and
# CDM_ROOT to enter another root than the toolchain's.
cdm_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd -P)
cdm_cache=${CDM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cdm}
mkdir -p "${CDM_BUILD:=$cdm_repo/build}"
cdm_build=$(cd "$CDM_BUILD" && pwd -P)
# shellcheck disable=SC2034 # for the scripts that source this file
{
	cdm_root=${CDM_ROOT:-$cdm_cache/root}
	cdm_tools=$cdm_repo/tools/cdm
	cdm_linux=$cdm_build/linux
	cdm_log=$cdm_build/log
}

# Touched, but in no kernel that is built here: another architecture, an option
# that is off. An extended regular expression for the start of a path
# shellcheck disable=SC2034
cdm_not_built='arch/arm64/|mm/kasan/|security/tomoyo/|virt/kvm/'

# What make hands down is for this repository's Makefile, not for the kernel's.
unset MAKEFLAGS MFLAGS MAKELEVEL

# One clock for a make target and all that it calls.
export CDM_START=${CDM_START:-$(date +%s)}

# stage MESSAGE...: what goes on now, with the time since the target's start
stage() {
	local t=$(($(date +%s) - CDM_START))
	printf '[%3d:%02d] %s\n' $((t / 60)) $((t % 60)) "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# logged NAME COMMAND...: runs a command with its output in $cdm_log/NAME.log;
# a failure names that file and quotes its end
logged() {
	local log=$cdm_log/$1.log status
	shift
	mkdir -p "$cdm_log"
	set +e
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	status=$?
	set -e
	if [ $status -ne 0 ]; then
		printf '%s: failed with status %d: %s\n' "${0##*/}" $status "$*" >&2
		printf '    --- the end of %s ---\n' "$log" >&2
		tail -n 30 "$log" | sed 's/^/    /' >&2
		return $status
	fi
}

inside_root() {
	[ -e /.cdm-root ]
}

# enter_root "$@": the calling script goes on inside the toolchain root
enter_root() {
	inside_root && return
	"$cdm_tools/build/setup"
	exec "$cdm_tools/build/in-root" "$0" "$@"
}

# enter_toolchain "$@": the same, unless the user names an LLVM of this machine.
# Sets cdm_top, the build directory's name for make, and cdm_make, its variables.
# In the toolchain root that is /build, wherever the checkout is (see in-root).
enter_toolchain() {
	# shellcheck disable=SC2034
	if [ -n "${LLVM:-}" ]; then
		cdm_top=$cdm_build
		cdm_make=(LLVM="$LLVM" LOCALVERSION=)
	else
		enter_root "$@"
		cdm_top=/build
		cdm_make=(LLVM=1 CC="ccache clang" LOCALVERSION=)
	fi
}

# locked [-s] FILE COMMAND...: one at a time among all that name this file; with
# -s, beside others that have -s
locked() {
	local mode=-x lock
	if [ "$1" = -s ]; then
		mode=-s
		shift
	fi
	lock=$1
	shift
	mkdir -p "$(dirname "$lock")"
	(
		flock -n $mode 9 || {
			stage "waiting for whoever holds $lock"
			flock $mode 9
		}
		"$@" 9>&-
	) 9>"$lock"
}

# age_tree DIR: makes the files of a kernel tree older than all objects. For a tree
# of which nothing has been compiled; see recall_objects() in tools/cdm/build/kernel
age_tree() {
	git -C "$1" ls-files -z | (cd "$1" && xargs -0 touch -h -c -d @1500000000)
	git -C "$1" update-index -q --refresh || true
}
