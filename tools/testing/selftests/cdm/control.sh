#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The control of the denial tests: runs them on a kernel without CDM, with the
# same memory added by dax/kmem. What a device's node denies must happen there: a
# denial that passes on this kernel is a test that cannot fail. And what must go
# on working has to work there. control.list says which test is which.
#
# usage: control.sh [PROGRAM...]
#
# Prints TAP, a result for each of these tests, named "CAPABILITY: TEST", with
# what a denial that fails has seen. Exits with 0 if all is as it must be.

cd "$(dirname "$0")" || exit 1
if [ -e /sys/kernel/mm/cdm ]; then
	echo "Bail out! this kernel has CDM"
	exit 1
fi

limit=$(sed -n 's/^timeout=//p' settings)
out=$(mktemp)
count=0 bad=0

# what_is PROGRAM TEST: sets what to the first word of the line for it, or to ''
what_is() {
	local program pattern _

	while read -r what program pattern _; do
		[[ $what != '#'* && $1 == "$program" ]] || continue
		# shellcheck disable=SC2053 # a pattern
		[[ $2 != $pattern ]] || return 0
	done <control.list
	what=
}

result() {
	count=$((count + 1))
	echo "$1 $count $2"
	[ "$1" = ok ] || bad=1
}

# judge PROGRAM RESULT TEST: with what the program said of it in the array said
judge() {
	local what line

	what_is "$1" "$3"
	case $what-$2-$3 in
	other-*)
		return
		;;
	works-ok-*)
		result ok "works: $3"
		;;
	works-*)
		printf '# %s\n' "${said[@]#\# }"
		result "not ok" "works: $3"
		;;
	-ok-*denied* | -not-*denied*)
		echo "# control.list does not say which capability this is about"
		result "not ok" "$1: $3"
		;;
	-*)
		return
		;;
	*-ok-*)
		echo "# passes without CDM"
		result "not ok" "$what: $3"
		;;
	*)
		for line in "${said[@]}"; do
			[[ $line != *Expected* ]] || echo "# ${line#\# }"
		done
		result ok "$what: $3"
		;;
	esac
}

if [ $# -eq 0 ]; then
	mapfile -t programs < <(awk '!/^#/ && NF && !seen[$2]++ { print $2 }' control.list)
	set -- "${programs[@]}"
fi
for program; do
	CDM_CONTROL=1 timeout -k 10 "$limit" "./$program" >"$out" 2>&1
	said=() found=0
	while IFS= read -r line; do
		case $line in
		'ok '* | 'not ok '*)
			[[ $line =~ ^(ok|not)( ok)?\ [0-9]+\ ([^ ]+) ]] || continue
			judge "$program" "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
			said=() found=1
			;;
		*)
			said+=("$line")
			;;
		esac
	done <"$out"
	if [ $found -eq 0 ]; then
		sed 's/^/# /' "$out"
		result "not ok" "$program: no result"
	fi
done
rm "$out"
echo "1..$count"
exit $bad
