#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Node 0 leaves a cpuset: memory bound to node 1 is bound to 2, that of 2 to 1
#
# Kernel 7.3.4-1~bpo13+1 (Debian), numactl and libnuma 2.0.19-1, python3 3.13.5-1,
# manpages-dev 6.9.1, in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that a program bound to node 1 is left alone when its cpuset
# loses node 0 and keeps node 1; and that what its policy says and where its
# pages are agree afterwards, since the kernel changes both in one go
# ("Memory policy rebinding and migration", cgroup-v2.rst).
#
# What happens when cpuset.mems goes from 0-2 to 1-2 and back to 0-2:
#
#   set by the program   bind:0     bind:1     bind:2     bind=static:1  prefer:0
#   mems 1-2: policy     bind:1     bind:2     bind:1     bind=static:1  prefer:0
#     old pages on       1          1          2          1              1
#     new pages on       1          2          1          1              1
#   mems 0-2: policy     bind:0     bind:1     bind:0     bind=static:1  prefer:0
#
# Nodes 1 and 2, both allowed all the time, have changed places in the policies:
# the kernel renumbers by position (the second of three nodes becomes the second
# of two, the third wraps round to the first). The pages go by another rule:
# those on nodes that are still allowed stay. So each of the two has its old pages
# on one node and its new ones on the other; numa_maps shows a strict policy
# that half of the pages violate. Giving node 0 back does not restore the third:
# what was bound to 2 is bound to 0, for good. "prefer" is not renumbered at all
# and names a node that is not allowed.
#
# Documentation: numa_memory_policy.rst says that a remap "may result in nodes
# being used that were previously undesired", not that nodes still allowed
# change places, and that "preferred node (Preferred)" is remapped too, which it
# is not. cpuset(7) says of pages that "the relative placement of a migrated
# page" is preserved. mbind(2) has only what MPOL_F_STATIC_NODES prevents.
#
# Who is hit: machines where a manager of jobs or containers changes the nodes of
# running programs (to keep node 0 for the system, to take away or add a device)
# and programs with bound memory: numactl --membind too. Nobody gets an error.
#
# Instead: MPOL_F_STATIC_NODES in all code that means a certain node (numactl and
# libnuma have no switch for it); set cpuset.mems before programs start, as
# cgroup-v2.rst advises for other reasons; take away nodes from the end of the
# list only, where positions do not change for those before.

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
cat >/bound.py <<'EOP'
import ctypes, mmap, os, time
numa = ctypes.CDLL("libnuma.so.1", use_errno=True)
PAGE, PREFERRED, BIND, STATIC = 4096, 1, 2, 1 << 15

class Area:
    """32 pages with a policy; a quarter of them is written in each of three steps."""
    def __init__(self, name, mode, node):
        self.name, self.written = name, 0
        self.area = mmap.mmap(-1, 32 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.area.madvise(mmap.MADV_NOHUGEPAGE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.area))
        mask = ctypes.c_ulong(1 << node)
        assert numa.mbind(ctypes.c_void_p(self.start), ctypes.c_ulong(32 * PAGE), mode,
                          ctypes.byref(mask), ctypes.c_ulong(64), 0) == 0

    def write(self):
        for page in range(self.written, self.written + 8):
            self.area[page * PAGE] = 1
        self.written += 8

    def nodes(self, first, last):
        """The nodes of some of the pages, each once."""
        n = last - first
        pages = (ctypes.c_void_p * n)(*(self.start + page * PAGE for page in range(first, last)))
        status = (ctypes.c_int * n)()
        assert numa.move_pages(0, ctypes.c_ulong(n), pages, None, status, 0) == 0
        return "+".join(str(node) for node in sorted(set(status)))

    def policy(self):
        for line in open("/proc/self/numa_maps"):
            words = line.split()
            if int(words[0], 16) == self.start:
                return words[1]

areas = [Area("0", BIND, 0), Area("1", BIND, 1), Area("2", BIND, 2),
         Area("static", BIND | STATIC, 1), Area("preferred", PREFERRED, 0)]
for step, mems in enumerate(("0-2", "1-2", "0-2")):
    with open("/mnt/job/cpuset.mems", "w") as file:
        file.write(mems)
    time.sleep(2)       # pages are moved after the write has returned
    for area in areas:
        before = area.written
        area.write()
        print(f"step{step} mems={mems} area={area.name} {area.policy()}",
              f"old={area.nodes(0, before) if before else '-'}",
              f"new={area.nodes(before, area.written)}", flush=True)
EOP
mount -t cgroup2 cgroup2 /mnt
echo +cpuset >/mnt/cgroup.subtree_control
mkdir /mnt/job
echo 0-2 >/mnt/job/cpuset.mems
sh -c 'echo $$ >/mnt/job/cgroup.procs; exec python3 /bound.py'
# The same with a program that has no idea of nodes
sh -c 'echo $$ >/mnt/job/cgroup.procs; exec numactl --membind=1 sleep 1000' &
sleep 5
heap() { grep ' heap ' /proc/$!/numa_maps | sed "s/^/numactl $1: /"; }
heap before
echo 1-2 >/mnt/job/cpuset.mems
sleep 2
heap after
kill $!
EOF

show() { grep -E '^(step|numactl )' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
for node in 0 1 2; do
	expect "step0 mems=0-2 area=$node bind:$node old=- new=$node" "the control: bind:$node is not on its node"
done
expect 'step1 mems=1-2 area=static bind=static:1 old=1 new=1' "the control: static ones are renumbered"
expect 'step1 mems=1-2 area=0 bind:1 old=1 new=1' "the control: what was bound to 0 does not go to the first node"
expect 'step1 mems=1-2 area=1 bind:2 old=1 new=2' "what was bound to 1 is not split between 1 and 2"
expect 'step1 mems=1-2 area=2 bind:1 old=2 new=1' "what was bound to 2 is not split between 2 and 1"
expect 'step1 mems=1-2 area=preferred prefer:0 old=1 new=[12]' "prefer is renumbered"
expect 'step2 mems=0-2 area=1 bind:1 old=1\+2 new=1' "with node 0 back, what was bound to 1 is not bound to it"
expect 'step2 mems=0-2 area=2 bind:0 old=1\+2 new=0' "with node 0 back, what was bound to 2 is not bound to 0"
expect 'numactl before: .* bind:1 .* N1=[0-9]+ .*' "the control: numactl --membind=1 does not bind to 1"
expect 'numactl after: .* bind:2 .* N1=[0-9]+ .*' "numactl --membind=1 is not bound to 2, with its pages on 1"

echo "$name: as described:"
show | sed 's/^/    /'
