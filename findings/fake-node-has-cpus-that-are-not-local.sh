#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# With numa=fake each node lists the CPUs, and "bind to node 1" uses node 0
#
# Kernel 7.3.4-1~bpo13+1 and numactl 2.0.19-1 (both Debian), in QEMU
# 1:10.0.13+ds-0+deb13u1.
#
# One would expect that a kernel booted with numa=fake=2U, which "divides each
# physical node" in two, is a NUMA machine as far as software can see: that a
# CPU belongs to one node, the one whose cpulist has it, and that a program
# bound to node 1's CPUs gets node 1's memory, as its local memory.
#
# What happens, with one physical node, two CPUs and numa=fake=2U:
#
#   /sys/devices/system/node/node0/cpulist  0-1
#   /sys/devices/system/node/node1/cpulist  0-1
#   /sys/devices/system/cpu/cpu0, cpu1      node0, node0
#   distances                               10 between the two nodes too
#   numactl --cpunodebind=1 --localalloc    all memory on node 0
#
# The second node is nobody's local node, although it lists every CPU; getcpu(2)
# says node 0 on both. Nothing ever falls to node 1 by first touch as long as
# node 0 has room, and --cpunodebind=1 confines nothing. As all distances are 10
# the kernel has no reason to prefer one of the nodes either.
#
# Documentation: kernel-parameters.txt and numa(7) have no word on CPUs with
# fake nodes.
#
# Who is hit: who develops or tests NUMA software on an ordinary machine this
# way. Tests of "threads of node 1 get memory of node 1" fail, tests of "a node
# without CPUs" can't be done, and programs that count the CPUs per node
# have each CPU twice.
#
# Instead: a guest with real nodes (QEMU: -numa node,cpus=... and -numa dist), or
# with fake nodes bind memory by number (--membind), never by CPU.

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	numactl=2.0.19-1"

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
cd /sys/devices/system
grep -H . node/node*/cpulist node/node*/distance
for cpu in 0 1; do
	echo "cpu$cpu: $(cd cpu/cpu$cpu && echo node[0-9]*)"
done
numactl --cpunodebind=1 --localalloc cat /proc/self/numa_maps |
	grep ' heap ' | sed 's/^/cpunodebind: /'
numactl --membind=1 cat /proc/self/numa_maps | grep ' heap ' | sed 's/^/membind: /'
EOF
show() { grep -v -e '^kernel' -e '^the-guest' "$tmp/out" || true; }
expect() { grep -qE "$1" "$tmp/out" || changed "$2; now: $(show)"; }

# The control: two nodes of the machine's own, a CPU in each
guest "numactl" "" -m 1G -smp 2 \
	-object memory-backend-ram,id=m0,size=512M -object memory-backend-ram,id=m1,size=512M \
	-numa node,nodeid=0,memdev=m0,cpus=0 -numa node,nodeid=1,memdev=m1,cpus=1 <"$tmp/script"
expect '^node/node0/cpulist:0$' "the control: node 0 has CPU 0"
expect '^node/node1/cpulist:1$' "the control: node 1 has CPU 1"
expect '^cpu1: node1$' "the control: CPU 1 is of node 1"
expect '^cpunodebind: .* N1=[0-9]+ ' "the control: node 1's CPU gets node 1's memory"

rm -rf "$tmp/init"
guest "numactl" "" -m 1G -smp 2 -object memory-backend-ram,id=m0,size=1G \
	-numa node,nodeid=0,memdev=m0,cpus=0-1 -append "console=ttyS0 panic=-1 numa=fake=2U" <"$tmp/script"
for node in 0 1; do
	expect "^node/node$node/cpulist:0-1\$" "fake node $node does not list both CPUs"
	expect "^node/node$node/distance:10 10\$" "fake node $node has another distance than 10"
	expect "^cpu$node: node0\$" "CPU $node is not of node 0"
done
expect '^cpunodebind: .* N0=[0-9]+ ' "--cpunodebind=1 --localalloc: nothing on node 0"
! grep -qE '^cpunodebind: .* N1=' "$tmp/out" ||
	changed "--cpunodebind=1 --localalloc: memory of node 1; now: $(show)"
expect '^membind: .* N1=[0-9]+ ' "--membind=1 does not bind to fake node 1"

echo "$name: as described:"
show | sed 's/^/    /'
