#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What other people's tools show of a device's node and do with it: numactl,
# libnuma's programs, numastat, hwloc. The table in
# Documentation/admin-guide/mm/cdm.rst says the same. Prints TAP.

DRIVER=/sys/bus/pci/drivers/cdm_ivshmem
PARAMS=/sys/module/cdm_ivshmem/parameters
NODES=/sys/devices/system/node
WORK=/run/cdm-tools

cd "$(dirname "$0")" || exit 1
. ./tap.sh

# says PATTERN COMMAND...: whatever its status
says() {
	local pattern=$1
	shift
	"$@" 2>&1 | tee /dev/stderr | grep -qE -- "$pattern"
}

# pages NR COMMAND...: of 64 that a program touches, so many are on the node
pages() {
	local nr=$1
	shift
	says "^# $nr of 64 pages are on node $nid$" "$@" ./cdm_probe "$nid" 64
}

# KiB of the node: FilePages, Slab, ...
node_kib() {
	sed -n "s/.* $1: *\([0-9]*\) kB/\1/p" "$NODES/node$nid/meminfo"
}

nothing_but_anon() {
	local field
	for field in FilePages Slab PageTables KernelStack; do
		echo "$field: $(node_kib $field)"
		[ "$(node_kib $field)" = 0 ] || return 1
	done
}

# What a task does all day, bound to the device, works; its files stay in RAM.
tar_and_compile() {
	local bound="numactl -a --membind=$nid"
	mkdir -p $WORK && $bound tar -cf $WORK/tar . &&
		mkdir $WORK/copy &&
		$bound tar -C $WORK/copy -xf $WORK/tar &&
		printf 'int main(void)\n{\n\treturn 42;\n}\n' >$WORK/a.c &&
		$bound gcc -o $WORK/a $WORK/a.c || return 1
	$bound $WORK/a
	[ $? = 42 ]
}

[ -e $DRIVER ] || modprobe cdm_ivshmem caps=none
set -- $DRIVER/*:*
if [ -e "$1" ]; then
	device=${1##*/}
	echo "$device" >$DRIVER/unbind
else
	for path in /sys/bus/pci/devices/*; do
		[ "$(cat "$path/device")" != 0x1110 ] || device=${path##*/}
	done
fi
echo migrate,interleave >$PARAMS/caps
echo "$device" >$DRIVER/bind
nid=$(cat $NODES/has_coherent_memory)
ram=$(sed 's/[-,].*//' $NODES/has_memory)
trap 'rm -rf $WORK "$out"; echo "$device" >$DRIVER/unbind' EXIT

echo "TAP version 13"

# numactl
ok "numactl -H shows the node" says "^node $nid size: [1-9]" numactl -H
ok "numactl -s does not: it may be named, but nobody has" no says "bind:.* $nid " numactl -s
ok "numactl -a --membind" pages 64 numactl -a --membind="$nid"
ok "numactl --membind without -a says no" says "node argument $nid is out of range" \
	numactl --membind="$nid" true
ok "numactl -a --preferred" pages 64 numactl -a --preferred="$nid"
ok "numactl -a --preferred-many, alone" pages 64 numactl -a --preferred-many="$nid"
ok "numactl -a --preferred-many, with a nearer node" pages 0 \
	numactl -a --cpunodebind="$ram" --preferred-many="$ram,$nid"
ok "numactl -a --interleave" pages 32 numactl -a --interleave="$ram,$nid"
ok "numactl -a --weighted-interleave" pages "[1-9][0-9]*" \
	numactl -a --weighted-interleave="$ram,$nid"
ok "numactl --interleave=all is ordinary nodes" pages 0 numactl --interleave=all
ok "numactl -a --interleave=all is all" pages "[1-9][0-9]*" numactl -a --interleave=all
ok "numactl --membind=all is ordinary nodes" pages 0 numactl --membind=all
ok "numactl -a --localalloc" pages 0 numactl -a --localalloc
ok "numactl --cpunodebind: the node has no CPU" says "Invalid argument" \
	numactl -a --cpunodebind="$nid" true
ok "no policy" pages 0

# What knows no -a cannot name the node.
sleep 100 &
sleeper=$!
ok "migratepages says no" says "out of range" migratepages $sleeper "$ram" "$nid"
ok "migspeed says no" says "out of range" migspeed -p 100 "$ram" "$nid"
ok "memhog says no" says "out of range" memhog -r1 1M membind "$nid"
ok "numactl -a memhog, by its task's policy" numactl -a --membind="$nid" memhog -r1 1M
kill $sleeper

# numastat
ok "numastat has a column for it" says "node$nid" numastat
ok "numastat -m" says "Node $nid " numastat -m
numactl -a --membind="$nid" sleep 100 &
sleeper=$!
ok "numastat -p" says "Node $nid" numastat -p $sleeper
kill $sleeper

# hwloc: what is not in Mems_allowed is not allowed
ok "lstopo leaves it out" no says "P#$nid [0-9]*MB" lstopo-no-graphics
ok "lstopo --disallowed shows it" says "NUMANode.*P#$nid " lstopo-no-graphics --disallowed
ok "hwloc-bind says no" says "does not exist" \
	hwloc-bind --membind "numanode:$nid" -- true
ok "hwloc-bind --disallowed" pages 64 hwloc-bind --disallowed --membind "numanode:$nid" --

ok "tar and a compiler, bound to it" tar_and_compile
ok "its files and tables are in RAM" nothing_but_anon

finish
