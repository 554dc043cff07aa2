# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the tests that are scripts share: each result is what a command says. To be
# sourced, in the directory of the tests.

out=$(mktemp)
count=0 failures=0

# ok NAME COMMAND...: one result
ok() {
	local name=$1
	shift
	count=$((count + 1))
	if "$@" >"$out" 2>&1; then
		echo "ok $count $name"
	else
		echo "# $*"
		sed 's/^/# /' "$out"
		echo "not ok $count $name"
		failures=$((failures + 1))
	fi
}

no() {
	! "$@"
}

# The plan, and the exit status
finish() {
	echo "1..$count"
	[ $failures = 0 ]
}
