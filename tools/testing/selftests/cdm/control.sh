#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The control of the denial tests: runs them on a kernel without CDM, with the
# same memory added by dax/kmem. Whatever is "denied" must not be so there. Each
# test whose name or variant says that must fail; a denial that passes on this
# kernel is a test that cannot fail. Prints a table, and exits with 0 if none did.

cd "$(dirname "$0")" || exit 1
if [ -e /sys/kernel/mm/cdm ]; then
	echo "$0: this kernel has CDM" >&2
	exit 1
fi

bad=0
[ $# -gt 0 ] || set -- migrate ksm numa_balancing mixed_vma isolation placement
rm -f /tmp/control.*
for program; do
	CDM_CONTROL=1 ./"$program" 2>&1 | tee "/tmp/control.$program" | grep '^#'
done
for log in /tmp/control.*; do
	while read -r result _ name; do
		case $result-$name in
		ok-*denied*)
			echo "PASSES WITHOUT CDM: ${log##*.}: $name"
			bad=1
			;;
		not-*denied*) echo "fails, as it must: ${log##*.}: $name" ;;
		ok-*) echo "passes, not a denial: ${log##*.}: $name" ;;
		not-*) echo "fails, not a denial: ${log##*.}: $name" ;;
		esac
	done <<END
$(sed -n 's/^ok \([0-9]*\) \(.*\)/ok \1 \2/p; s/^not ok \([0-9]*\) \(.*\)/not \1 \2/p' "$log")
END
	rm "$log"
done
exit $bad
