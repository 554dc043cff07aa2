#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# After a node with a lower number appeared, numa_distance() gives another's
#
# libnuma 2.0.19-1, python3 3.13.5-1, kernel 7.3.4-1~bpo13+1 (all Debian), in
# QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that numa_distance(3) of two nodes that were there all along
# stays what it is when some other node comes, or that it says 0, "cannot be
# determined". A node's distance to itself is 10.
#
# What happens, with nodes 0 and 2, and a DIMM plugged into node 1 while a program
# runs that has libnuma loaded and has not asked for a distance yet:
#
#              0-2   2-0   2-2    0-1
#   before      40    40    10      0    (there is no node 1)
#   sysfs now   40    40    10     15
#   the program 15    40    50      0    wrong: 0-2 is 0-1's, 2-2 is 2-1's
#   a new one   40    40    10     15
#
# libnuma lists the nodes once, when it is loaded, and reads the distances at
# the first question. The kernel's lines then have a number more, and nothing
# in them says for which nodes; libnuma gives them to the nodes of its list in
# turn. No error; the wrong table is kept as long as the program runs. Node 2,
# 40 away, now seems nearer than any other, and 50 away from itself.
#
# Documentation: numa(3) has a 0 for what cannot be determined; nothing on nodes
# that come or go.
#
# Who is hit: long-running programs that place by distance (virtual machine
# managers, databases, language runtimes) where a lower-numbered node comes
# late: memory hotplug per node, CXL regions and pmem given to kmem, whose
# node numbers are fixed at boot and whose order of arrival is not. Programs
# started afterwards are right, so it does not show in numactl -H.
#
# Instead: ask for one distance at start, before any node can come (the table
# is then complete, for the nodes of that time); or read nodeN/distance beside
# /sys/devices/system/node/online, both anew, and start over if that changed.

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	python3=3.13.5-1 libnuma1=2.0.19-1"

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
# The DIMM is plugged in when the guest asks for it.
mkfifo "$tmp/monitor.in" "$tmp/monitor.out"
cat "$tmp/monitor.out" >/dev/null &
reader=$!
(
	exec >"$tmp/monitor.in"
	until grep -qs '^plug now' "$tmp/serial"; do sleep 1; done
	echo "object_add memory-backend-ram,id=m1,size=256M"
	echo "device_add pc-dimm,id=dimm1,memdev=m1,node=1"
	until grep -qs '^the-guest-is-done' "$tmp/serial"; do sleep 1; done
) &
writer=$!
trap 'kill $reader $writer 2>/dev/null || true; rm -rf "$tmp"' EXIT
guest "python3" "usr/lib/python3.13 usr/lib/x86_64-linux-gnu/libnuma.so.1
	usr/lib/x86_64-linux-gnu/libffi.so.8" -m 768M,slots=1,maxmem=1G -smp 1,sockets=2,cores=1,threads=1,maxcpus=2 \
	-object memory-backend-ram,id=m0,size=384M -object memory-backend-ram,id=m2,size=384M \
	-numa node,nodeid=0,memdev=m0 -numa node,nodeid=1 -numa node,nodeid=2,memdev=m2 \
	-numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1 \
	-numa dist,src=0,dst=1,val=15 -numa dist,src=0,dst=2,val=40 -numa dist,src=1,dst=2,val=50 \
	-chardev "pipe,id=monitor,path=$tmp/monitor" -mon chardev=monitor <<'EOF'
cat >/distance.py <<'EOP'
import ctypes, os, sys, time
numa = ctypes.CDLL("libnuma.so.1")
name, plug = sys.argv[1], len(sys.argv) > 2
node1 = "/sys/devices/system/node/node1"
print(name, "begins, node 1:", os.path.exists(node1), flush=True)
if plug:
    print("plug now", flush=True)
    while not os.path.exists(node1):
        time.sleep(1)
    time.sleep(5)
for node in 0, 2:
    print(name, "sysfs", node, open(f"/sys/devices/system/node/node{node}/distance").read().strip())
    print(name, "libnuma", node, *(numa.numa_distance(node, to) for to in range(3)))
EOP
python3 /distance.py before
python3 /distance.py old plug
python3 /distance.py new
EOF

show() { grep -E '^(before|old|new) ' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
expect "before libnuma 0 10 0 40" "the control: distances of node 0, without node 1"
expect "before libnuma 2 40 0 10" "the control: distances of node 2, without node 1"
expect "old begins, node 1: False" "the program began when there was a node 1"
expect "old sysfs 0 10 15 40" "node 1 did not come, or sysfs says something else of node 0"
expect "old sysfs 2 40 50 10" "sysfs says something else of node 2"
expect "old libnuma 0 10 0 15" "the running program's distances of node 0 are others"
expect "old libnuma 2 40 0 50" "the running program's distances of node 2 are others"
expect "new libnuma 0 10 15 40" "the control: a new program's distances of node 0"
expect "new libnuma 2 40 50 10" "the control: a new program's distances of node 2"

echo "$name: as described (distances to the nodes 0, 1, 2):"
show | sed 's/^/    /'
