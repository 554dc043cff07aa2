#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A memory block that two nodes share is one node's in lsmem, and stays online
#
# lsmem of util-linux 2.41.5-0+deb13u1, kernel 7.3.4-1~bpo13+1 (both Debian), in
# QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that lsmem's NODE says whose a block is, that adding up SIZE by
# NODE gives the nodes' sizes, and that the blocks it gives for node 1 are those
# to take offline for node 1 to go.
#
# What happens where a node ends in the middle of a block: node 0 has 320 MiB, node
# 1 the following 192 MiB, blocks are 128 MiB:
#
#   lsmem                block 2 is node 0's, all 128 MiB of it
#   sysfs, both ways     memory2/node0 and memory2/node1, node0/memory2 and
#                        node1/memory2
#   sizes by lsmem       node 0 has 384 MiB, node 1 has 128 MiB
#   MemTotal             312 and 144 MiB (without what the kernel keeps), so node
#                        1 has more than lsmem gives it
#   offlining block 2    the write to its "state" fails, it stays online
#
# lsmem takes one of the links to nodes and does not look for a second. The
# block can't go offline, whatever is on it, and so neither node can be emptied;
# lsmem's only hint is "None" in ZONES, a column that is not in its default output
# (as NODE is not), and which the first block has here too, for its two zones.
#
# Documentation: lsmem(1) says no more of NODE than that ranges are split by it.
# The kernel's memory-hotplug.rst says of valid_zones that "none" may mean several
# nodes and that such blocks cannot be offlined.
#
# Who is hit: scripts that take a node's memory offline by lsmem's NODE; who sizes
# nodes with it. Firmware aligns nodes to what it likes, and blocks are up to
# 2 GiB on large machines; QEMU's nodes are as large as one says.
#
# Instead: /sys/devices/system/node/nodeN/memory*, a block that is in two of these
# directories belongs to both; sizes from nodeN/meminfo. In guests, make nodes
# multiples of the block size (/sys/devices/system/memory/block_size_bytes).

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	util-linux=2.41.5-0+deb13u1"

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
guest "lsmem" "" -m 512M -smp 1 \
	-object memory-backend-ram,id=m0,size=320M -object memory-backend-ram,id=m1,size=192M \
	-numa node,nodeid=0,memdev=m0,cpus=0 -numa node,nodeid=1,memdev=m1 <<'EOF'
cd /sys/devices/system
lsmem --all -o RANGE,SIZE,STATE,NODE,ZONES | sed 's/^/lsmem: /'
for block in 1 2 3; do
	echo "memory$block: $(cd memory/memory$block && echo node[0-9]*) $(cat memory/memory$block/valid_zones)"
done
for node in 0 1; do
	echo "node$node: $(cd node/node$node && echo memory[0-9]*)"
	grep MemTotal node/node$node/meminfo
done
echo offline >memory/memory2/state
echo "offline: $? $(cat memory/memory2/state)"
EOF

show() { grep -E '^(lsmem|memory|node|Node|offline)' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
expect 'memory1: node0 .*' "the control: block 1 is not node 0's"
expect 'memory3: node1 .*' "the control: block 3 is not node 1's"
expect 'memory2: node0 node1 none' "block 2 is not of both nodes"
expect 'node0: memory0 memory1 memory2' "node 0 has not block 2"
expect 'node1: memory2 memory3' "node 1 has not block 2"
expect 'lsmem: 0x0000000010000000-0x0000000017ffffff +128M online +[01] +None' "lsmem does not give block 2 one node"
expect 'offline: 1 online' "block 2 goes offline"

echo "$name: as described:"
show | sed 's/^/    /'
