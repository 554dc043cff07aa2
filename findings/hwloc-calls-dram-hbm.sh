#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Beside slow memory hwloc calls the ordinary DRAM "HBM", and the slow one "DRAM"
#
# hwloc 2.12.0-4, kernel 7.3.4-1~bpo13+1 (both Debian), in QEMU
# 1:10.0.13+ds-0+deb13u1.
#
# One would expect, on a machine whose processors have DRAM (node 0) and which
# has a memory-only node of a fifth of the bandwidth (node 1: memory behind CXL
# that the firmware hands over as ordinary memory), that hwloc's names say so:
# node 0 is DRAM, node 1 something else, or nothing, as nothing is known.
#
# What happens, if the firmware's HMAT tells both bandwidths, here 10 and 2 GiB/s:
#
#   # lstopo
#       NUMANode(HBM) L#0 (P#0 ...)
#       NUMANode(DRAM) L#1 (P#1 ...)
#   # hwloc-calc --physical-output --intersect numanode 'numa[HBM]:all'
#   0
#   # hwloc-bind --strict --membind 'numa[DRAM]:all' -- ...
#   all of the program's memory is on the slow node
#
# Of two tiers of memory that hwloc has no other word about, a tier of more than
# twice the other's bandwidth is "HBM" and the slower one "DRAM"; that the slow
# one may be the odd one out is not considered. With 10 and 6 GiB/s there is no
# name on either. (A node made by kmem of a CXL region is known to hwloc as
# CXL-DRAM; one that the firmware put into the memory map is not.)
#
# Documentation: hwloc(7) explains numa[HBM] as "NUMA nodes marked as
# high-bandwidth memory"; the library's manual says that kinds are guessed from
# bandwidth and that of these guesses only those "that are likely correct" are
# made by default.
#
# Who is hit: job scripts and MPI launchers that choose by kind of memory
# ("hwloc-bind --membind numa[DRAM]:all", "place the big arrays not in HBM"):
# they get the very contrary. It needs two kinds of nodes and an HMAT; before
# CXL these were the HBM machines, for which the guess is right.
#
# Instead: HWLOC_MEMTIERS_GUESS=none in the environment (no names then), or
# HWLOC_MEMTIERS=0x1=DRAM; or choose by attribute, which is right in any case:
# hwloc-calc --local-memory --best-memattr bandwidth, or the numbers in
# /sys/devices/system/node/nodeN/access0/initiators.

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	hwloc-nox=2.12.0-4"

cannot() { echo "$name: cannot be run here: $*" >&2; exit 2; }
changed() { echo "$name: CHANGED: $*" >&2; exit 1; }
name=$(basename "$0" .sh)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# --- The packages, unpacked below $tmp/root; the host's apt says from where
[ "$(dpkg --print-architecture)" = amd64 ] || cannot "it takes an amd64 machine"
mkdir -p "$tmp"/apt/{lists,cache/archives}/partial "$tmp/root/usr"
touch "$tmp/apt/status"
lists=()
mirror() {	# needs the lists, which a fresh machine has not
	# shellcheck disable=SC2016 # for apt and awk to expand
	apt-get indextargets "${lists[@]}" --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
		awk -F'|' '$2 == "Debian" && $3 == "Debian" && !n++ { print $1 }'
}
mirror=$(mirror)
if [ -z "$mirror" ]; then
	mkdir -p "$tmp/apt/host/partial"
	lists=(-o Dir::State::Lists="$tmp/apt/host" -o Acquire::Check-Valid-Until=false)
	apt-get -qq "${lists[@]}" update >"$tmp/log" 2>&1 || true
	mirror=$(mirror)
fi
[ -n "$mirror" ] || cannot "apt knows no Debian mirror"
for suite in trixie trixie-updates trixie-backports; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$tmp/apt/sources.list"
apt=(apt-get -qq -y -o Dir::Etc::SourceList="$tmp/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o Dir::State::Lists="$tmp/apt/lists" -o Dir::State::Status="$tmp/apt/status"
	-o Dir::Cache="$tmp/apt/cache" -o Acquire::Check-Valid-Until=false
	-o Acquire::Languages=none -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
"${apt[@]}" update >"$tmp/log" 2>&1 || cannot "no package lists: $(tail -n 3 "$tmp/log")"
# shellcheck disable=SC2086 # a list
"${apt[@]}" install --download-only -o Debug::NoLocking=true $packages >"$tmp/log" 2>&1 ||
	cannot "not these versions: $(tail -n 3 "$tmp/log")"
for dir in bin sbin lib lib64; do
	mkdir -p "$tmp/root/usr/$dir"
	ln -s "usr/$dir" "$tmp/root/$dir"
done
for deb in "$tmp"/apt/cache/archives/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" |
		tar -x -C "$tmp/root" --keep-directory-symlink --no-same-owner
done

# --- A guest: guest "PROGRAMS" "FILES" QEMU-OPTIONS... <SCRIPT; its output is in $tmp/out
lib="$tmp/root/usr/lib/x86_64-linux-gnu"
loader=("$tmp/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib")
guest() {
	local programs=$1 files=$2 init="$tmp/init" busybox="$tmp/root/usr/bin/busybox" file
	shift 2
	mkdir -p "$init"/{proc,sys,dev,tmp,root,mnt} "$init"/usr/{bin,sbin,lib64,lib/x86_64-linux-gnu}
	for file in bin sbin lib lib64; do
		ln -s "usr/$file" "$init/$file"
	done
	cp "$busybox" "$init/usr/bin/"
	for file in $programs; do
		cp -L "$tmp/root/usr/bin/$file" "$init/usr/bin/"
		"${loader[@]}" --list "$tmp/root/usr/bin/$file" |
			awk '$3 ~ "^/" { print $3 }' | xargs cp -L -t "$init/usr/lib/x86_64-linux-gnu"
	done
	cp -L "$tmp/root/usr/lib64/ld-linux-x86-64.so.2" "$init/usr/lib64/"
	for file in $files; do
		mkdir -p "$init/$(dirname "$file")"
		cp -r "$(realpath "$tmp/root/$file")" "$init/$file"
	done
	cat >"$init/job"
	cat >"$init/init" <<'EOF'
#!/bin/busybox sh
/bin/busybox --install /usr/sbin
export PATH=/usr/bin:/usr/sbin LC_ALL=C PYTHONDONTWRITEBYTECODE=1
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
echo 1 >/proc/sys/kernel/printk
echo "kernel $(uname -r)"
sh /job 2>&1
echo the-guest-is-done
poweroff -f
EOF
	chmod +x "$init/init"
	(cd "$init" && find . | "$busybox" cpio -o -H newc | gzip -1) >"$tmp/initramfs" 2>/dev/null
	QEMU_MODULE_DIR="$lib/qemu" timeout 900 "${loader[@]}" "$tmp/root/usr/bin/qemu-system-x86_64" \
		-nodefaults -no-user-config -display none -no-reboot -accel tcg -cpu max -machine q35 \
		-L "$tmp/root/usr/share/qemu" -L "$tmp/root/usr/share/seabios" -serial "file:$tmp/serial" \
		-kernel "$tmp"/root/usr/lib/modules/*/vmlinuz -initrd "$tmp/initramfs" \
		-append "console=ttyS0 panic=-1" "$@" </dev/null >"$tmp/log" 2>&1 || true
	tr -d '\r' <"$tmp/serial" >"$tmp/out" || cannot "no guest: $(tail -n 5 "$tmp/log")"
	grep -q '^the-guest-is-done' "$tmp/out" || cannot "the guest did not end: $(tail -n 5 "$tmp/out")"
	sed -i -n '/^kernel /,/^the-guest-is-done/p' "$tmp/out"
	grep -q '^kernel 7\.3\.4+deb13-amd64$' "$tmp/out" || cannot "another kernel: $(head -n 1 "$tmp/out")"
}

# --- The test
cat >"$tmp/script" <<'EOF'
grep -H . /sys/devices/system/node/node*/access0/initiators/read_bandwidth
lstopo-no-graphics --no-io --no-caches | grep NUMANode
for kind in HBM DRAM; do
	echo "$kind is $(hwloc-calc --physical-output --intersect numanode "numa[$kind]:all" 2>/dev/null)"
done
hwloc-bind --strict --membind 'numa[DRAM]:all' -- cat /proc/self/numa_maps |
	grep ' heap ' | sed 's/^/on DRAM: /'
HWLOC_MEMTIERS_GUESS=none lstopo-no-graphics --no-io --no-caches | grep NUMANode | sed 's/^/told: /'
HWLOC_MEMTIERS=0x1=DRAM lstopo-no-graphics --no-io --no-caches | grep NUMANode | sed 's/^/set: /'
echo "best: $(hwloc-calc --physical-output --local-memory --best-memattr bandwidth all)"
EOF
boot() {	# boot BANDWIDTH: that of node 1
	rm -rf "$tmp/init"
	guest "lstopo-no-graphics hwloc-calc hwloc-bind" "" -m 768M -smp 1 -machine hmat=on \
		-object memory-backend-ram,id=m0,size=384M -object memory-backend-ram,id=m1,size=384M \
		-numa node,nodeid=0,memdev=m0,cpus=0,initiator=0 -numa node,nodeid=1,memdev=m1,initiator=0 \
		-numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=100 \
		-numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=300 \
		-numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=10G \
		-numa "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=$1" \
		<"$tmp/script"
}
expect() { grep -qE "$1" "$tmp/out" || changed "$2; now: $(cat "$tmp/out")"; }

boot 6G
expect 'node1/access0/initiators/read_bandwidth:6144$' "the control: sysfs has node 1's bandwidth"
expect '^ *NUMANode L#0 \(P#0 ' "the control: node 0 has a name with 10 and 6 GiB/s"
expect '^ *NUMANode L#1 \(P#1 ' "the control: node 1 has a name with 10 and 6 GiB/s"

boot 2G
expect 'node0/access0/initiators/read_bandwidth:10240$' "sysfs has not node 0's bandwidth"
expect 'node1/access0/initiators/read_bandwidth:2048$' "sysfs has not node 1's bandwidth"
expect '^ *NUMANode\(HBM\) L#0 \(P#0 ' "node 0 is not called HBM"
expect '^ *NUMANode\(DRAM\) L#1 \(P#1 ' "node 1 is not called DRAM"
expect '^HBM is 0$' "numa[HBM] is not node 0"
expect '^DRAM is 1$' "numa[DRAM] is not node 1"
expect '^on DRAM: .* bind:1 .* N1=[0-9]+ ' "--membind numa[DRAM] does not bind to node 1"
expect '^told: *NUMANode L#0 \(P#0 ' "HWLOC_MEMTIERS_GUESS=none: node 0 has a name"
expect '^told: *NUMANode L#1 \(P#1 ' "HWLOC_MEMTIERS_GUESS=none: node 1 has a name"
expect '^set: *NUMANode\(DRAM\) L#0 \(P#0 ' "HWLOC_MEMTIERS: node 0 is not DRAM"
expect '^set: *NUMANode L#1 \(P#1 ' "HWLOC_MEMTIERS: node 1 has a name"
expect '^best: 0$' "the node of the best bandwidth is not node 0"

echo "$name: as described:"
grep -v -e '^kernel' -e '^the-guest' "$tmp/out" | sed 's/^/    /'
