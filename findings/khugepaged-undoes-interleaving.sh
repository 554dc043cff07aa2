#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# khugepaged undoes interleaving: nearly all goes to one node, even of 1:1
#
# Kernel 7.3.4-1~bpo13+1 (Debian, transparent huge pages "always", its default),
# numactl and libnuma 2.0.19-1, python3 3.13.5-1, in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that a program started with "numactl --interleave=0,1" keeps
# about half of its memory on each node, or with weights of 3 and 1 a quarter
# on node 1; and that huge pages are interleaved as such, 2 MiB here, 2 MiB there,
# which is what happens if the memory is huge pages from the first touch.
#
# What happens to a heap that grows in steps of 128 KiB, as malloc() does (no step
# is a huge page), in percent of 16 MiB on the nodes 0, 1 and 2, rounded down, of
# one run (where the heap begins makes a difference of some percent):
#
#                                        at first     minutes later
#   --interleave=0,1                     50 50  0     96  3  0
#   --interleave=0-2                     33 33 33     70 27  2
#   --weighted-interleave=0,1, 3 and 1   75 25  0     97  2  0
#   --interleave=0,1, no huge pages      50 50  0     50 50  0
#
# khugepaged makes a huge page of 512 small ones on the node that has most of
# them, the lowest number if several have; it doesn't ask for the policy. With
# pages interleaved over two nodes that is the same one for each 2 MiB, over three
# it is never the last; what is left there are the ragged ends of the heap.
# numa_maps goes on saying "interleave:0-1" or "weighted interleave:0-1".
#
# Documentation: transhuge.rst and madvise(2) say which pages khugepaged and
# MADV_COLLAPSE take, not where they go. set_mempolicy(2) speaks of the nodes
# "to be used for page allocations" and not of this one.
#
# Who is hit: who interleaves over DRAM and device memory for bandwidth or size.
# The longer the program runs (khugepaged looks at 16 MiB in 10 s by default), the
# less of its memory is on the device; DRAM fills up. A benchmark of a minute does
# not show it.
#
# Instead: no huge pages for such programs (prctl(PR_SET_THP_DISABLE), inherited
# by fork and exec), or huge pages from the start: large areas by mmap(2), which
# are then interleaved 2 MiB by 2 MiB and left alone.

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
cat >/grow.py <<'EOP'
import collections, ctypes, mmap, sys, time
numa, libc = ctypes.CDLL("libnuma.so.1"), ctypes.CDLL(None)
PAGE, STEP, HUGE, SIZE, PR_SET_THP_DISABLE = 4096, 128 << 10, 2 << 20, 16 << 20, 41
SLEEP = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"
libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_long]
name, how = sys.argv[1], sys.argv[2]

def khugepaged(milliseconds):
    with open(SLEEP, "w") as file:
        file.write(str(milliseconds))

def nodes():
    n = len(written)
    pages, status = (ctypes.c_void_p * n)(*written), (ctypes.c_int * n)()
    assert numa.numa_move_pages(0, ctypes.c_ulong(n), pages, None, status, 0) == 0
    count = collections.Counter(status)
    return " ".join(str(100 * count[node] // n) for node in range(3))

def policy():
    for line in open("/proc/self/numa_maps"):
        if " heap " in line:
            return line[:line.index(" heap ")].split(None, 1)[1]

khugepaged(3600000)
if how == "small":
    assert libc.prctl(PR_SET_THP_DISABLE, ctypes.c_ulong(1), ctypes.c_ulong(0),
                      ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0
written = []
if how == "mmap":
    area = mmap.mmap(-1, SIZE + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -(-ctypes.addressof(ctypes.c_char.from_buffer(area)) // HUGE) * HUGE
    steps = range(start, start + SIZE, STEP)
else:
    steps = (libc.sbrk(STEP) for _ in range(SIZE // STEP))
for step in steps:
    ctypes.memset(step, 1, STEP)
    written += range(step, step + STEP, PAGE)
first = now = nodes()
print(name, how, "first:", first, flush=True)
khugepaged(100)     # by default 10000; this is only to be done sooner
for _ in range(6):
    time.sleep(3)
    before, now = now, nodes()
    if before == now != first:
        break
print(name, how, "later:", now, policy(), flush=True)
EOP
echo "huge pages: $(cat /sys/kernel/mm/transparent_hugepage/enabled)"
numactl --interleave=0,1 python3 /grow.py two heap
numactl --interleave=0-2 python3 /grow.py three heap
numactl --interleave=0,1 python3 /grow.py two small
numactl --interleave=0,1 python3 /grow.py two mmap
echo 3 >/sys/kernel/mm/mempolicy/weighted_interleave/node0
numactl --weighted-interleave=0,1 python3 /grow.py weighted heap
EOF

show() { grep -E '^(two|three|weighted) ' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
expect 'huge pages: \[always\] .*' "transparent huge pages are not on by default"
expect 'two (heap|small) first: (49|50) (49|50) 0' "the control: not even over two nodes at first"
expect 'three heap first: 33 33 33' "the control: not even over three nodes at first"
expect 'weighted heap first: 7[45] 2[45] 0' "the control: not 3 to 1 at first"
expect 'two small later: (49|50) (49|50) 0 interleave:0-1' "the control: something moves without huge pages"
expect 'two mmap later: (49|50) (49|50) 0 .*' "the control: huge pages by mmap are not spread evenly"
expect 'two heap later: (8[6-9]|9[0-9]) ([0-9]|1[0-3]) 0 interleave:0-1' "1:1 stays"
expect 'three heap later: ([5-9][0-9]) [0-9]+ [0-9] interleave:0-2' "1:1:1 stays"
expect 'weighted heap later: 9[0-9] [0-9] 0 weighted interleave:0-1' "3:1 stays"

echo "$name: as described (percent on the nodes 0, 1, 2):"
show | sed 's/^/    /'
