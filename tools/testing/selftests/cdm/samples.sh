#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The drivers of samples/cdm: each makes a node of the device's memory, programs
# use it, and it ends with the driver; that in C also by a reset. Modules that were
# built out of tree are taken from the directory oot beside this script, others
# from the kernel's. Prints TAP.

DRIVERS=/sys/bus/pci/drivers
NODES=/sys/devices/system/node
CDM=/sys/kernel/mm/cdm

cd "$(dirname "$0")" || exit 1
. ./tap.sh
trap 'rm -f "$out"' EXIT

load() {
	if [ -e "oot/$1.ko" ]; then
		insmod "oot/$1.ko"
	else
		modprobe "$1"
	fi
}

# The drivers have no id of a device.
take() {
	echo "$1" >"$override" && bind "$1" && [ -e "$DRIVERS/$1/$device" ]
}

bind() {
	echo "$device" >"$DRIVERS/$1/bind"
}

has_node() {
	nid=$(cat $NODES/has_coherent_memory)
	[ -n "$nid" ] && [ "$(cat $NODES/"node$nid"/cdm_caps)" = "migrate thp" ] &&
		[ "$(cat $CDM/"node$nid"/state)" = online ]
}

has_none() {
	[ -z "$(cat $NODES/has_coherent_memory)" ]
}

# pages NR: of 64 that a program wants there
pages() {
	numactl -a --membind="$nid" ./cdm_probe "$nid" 64 | tee /dev/stderr |
		grep -q "^# $1 of 64 pages are on node $nid$"
}

say_lost() {
	echo 1 >"/sys/bus/pci/devices/$device/lost"
}

unbind() {
	echo "$device" >"$DRIVERS/$1/unbind"
}

for path in /sys/bus/pci/devices/*; do
	if [ "$(cat "$path/vendor" "$path/device")" = $'0x1af4\n0x1110' ]; then
		device=${path##*/}
		break
	fi
done
override=/sys/bus/pci/devices/$device/driver_override
[ ! -e "$DRIVERS/cdm_ivshmem/$device" ] || unbind cdm_ivshmem

echo "TAP version 13"
for driver in cdm_sample_c cdm_sample_rust; do
	ok "$driver: loads" load $driver
	ok "$driver: nothing happens by itself" has_none
	ok "$driver: takes the device" take $driver
	ok "$driver: there is a node" has_node
	ok "$driver: programs get pages there" pages 64
	ok "$driver: it cannot be unloaded" no rmmod $driver
	if [ $driver = cdm_sample_c ]; then
		ok "$driver: a reset" say_lost
		ok "$driver: no node after it" has_none
		ok "$driver: nor another reset" no say_lost
		ok "$driver: without a node it lets go of the device" unbind $driver
		ok "$driver: bound again" bind $driver
		ok "$driver: there is a node again" has_node
		ok "$driver: programs get pages there again" pages 64
	fi
	ok "$driver: lets go of the device" unbind $driver
	ok "$driver: no node is left" has_none
	ok "$driver: unloads" rmmod $driver
done

echo >"$override"

finish
