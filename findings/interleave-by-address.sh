#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# "numactl --interleave" can put all of a program's busiest pages on one node
#
# Kernel 7.3.4-1~bpo13+1 (Debian), numactl and libnuma 2.0.19-1, python3
# 3.13.5-1 (glibc of Debian 13), in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect, from "Memory will be allocated using round robin on nodes"
# (numactl(8)) and from "spreading out pages across multiple nodes"
# (set_mempolicy(2)), that of N pages which a program touches one after the
# other each of K nodes gets about N / K.
#
# What happens: there is no turn-taking for anonymous memory. The page's
# address alone decides: (address / page size) modulo the number of nodes. A
# program whose pages have a stride in common with that number gets no
# interleaving at all:
#
#   nodes 0,1   256 pages, one after the other      128 on node 0, 128 on node 1
#   nodes 0,1   128 pages, each second one          0 and 128 (or 128 and 0)
#   nodes 0-2   the top page of 60 threads' stacks  60 on one node, none else
#
# The last is the ordinary case: glibc's stacks are 8 MiB and a guard page, so
# 2049 pages apart, and 2049 is 3 * 683. (Threads that call malloc() get arenas
# in between, which shift some: 52, 1 and 7 were seen with Python's threads.)
# Two CPU nodes and one CXL node make three; if the one node is the CXL node,
# the threads run with the live part of their stacks in the slow memory. With
# two nodes it is buffers aligned to two pages or more whose first page is the
# busy one. With equal weights --weighted-interleave does the same.
#
# Documentation: the two pages above say no more. numa_memory_policy.rst of the
# kernel does say that anonymous pages go by an offset, but by the offset "into
# the segment [VMA]"; by that each of these stacks, a VMA of its own, would begin
# at the first node, with two nodes too, where they are spread evenly (2049 is
# odd). It is the address, not the offset in the VMA.
#
# Who is hit: users of interleaving for bandwidth or to use device memory
# along with RAM, with strided or aligned data or with many threads.
#
# Instead: check with numa_maps or move_pages(2) (nodes = NULL), not with
# totals; bind what is hot on its own (mbind(2), numa_alloc_onnode(3)); change
# the stride: a stack size that is not a multiple of the number of nodes with
# its guard page (pthread_attr_setstacksize(3), ulimit -s).

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	python3=3.13.5-1 libnuma1=2.0.19-1 numactl=2.0.19-1"

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
guest "python3 numactl" "usr/lib/python3.13 usr/lib/x86_64-linux-gnu/libnuma.so.1
	usr/lib/x86_64-linux-gnu/libffi.so.8" -m 768M -smp 1 \
	-object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M \
	-object memory-backend-ram,id=m2,size=256M -numa node,nodeid=0,memdev=m0,cpus=0 \
	-numa node,nodeid=1,memdev=m1 -numa node,nodeid=2,memdev=m2 <<'EOF'
cat >/touch.py <<'EOP'
import collections, ctypes, mmap, os, sys
numa, libc = ctypes.CDLL("libnuma.so.1"), ctypes.CDLL(None)
PAGE = 4096

def nodes(addresses):
    """How many of the pages are on each of the nodes 0, 1, 2."""
    n = len(addresses)
    pages, status = (ctypes.c_void_p * n)(*addresses), (ctypes.c_int * n)()
    assert numa.numa_move_pages(0, ctypes.c_ulong(n), pages, None, status, 0) == 0
    count = collections.Counter(status)
    assert all(node in (0, 1, 2) for node in count), count
    return " ".join(str(count[node]) for node in range(3))

def touched(stride):
    area = mmap.mmap(-1, 256 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for page in range(0, 256, stride):
        area[page * PAGE] = 1
    return nodes([start + page * PAGE for page in range(0, 256, stride)])

def stacks(number):
    """The top pages of the stacks of threads that do nothing but pause()."""
    threads, attr = (ctypes.c_ulong * number)(), (ctypes.c_char * 256)()
    low, size, tops = ctypes.c_void_p(), ctypes.c_size_t(), []
    for one in range(number):
        assert libc.pthread_create(ctypes.byref(threads, one * 8), None, libc.pause, None) == 0
    for one in threads:
        assert libc.pthread_getattr_np(ctypes.c_ulong(one), attr) == 0
        assert libc.pthread_attr_getstack(attr, ctypes.byref(low), ctypes.byref(size)) == 0
        assert size.value == 8 << 20, size
        tops.append(low.value + size.value - PAGE)
    return nodes(tops)

print(sys.argv[1], "each", touched(1))
print(sys.argv[1], "second", touched(2))
print(sys.argv[1], "stacks", stacks(60), flush=True)
os._exit(0)
EOP
ulimit -s 8192
numactl --interleave=0,1 python3 /touch.py two
numactl --interleave=0-2 python3 /touch.py three
numactl --weighted-interleave=0,1 python3 /touch.py weighted
EOF

show() { grep -E '^(two|three|weighted) ' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
expect 'two each 128 128 0' "the control: neighbours are spread evenly"
expect 'three each 8[4-6] 8[4-6] 8[4-6]' "the control: over three nodes too"
expect 'two second (0 128|128 0) 0' "each second page: not on one node"
expect 'weighted second (0 128|128 0) 0' "each second page, weights 1 and 1: not on one node"
expect 'three stacks (60 0 0|0 60 0|0 0 60)' "stacks over three nodes: not on one node"
expect 'two stacks 30 30 0' "stacks over two nodes: not spread evenly"

echo "$name: as described (pages on the nodes 0, 1, 2):"
show | sed 's/^/    /'
