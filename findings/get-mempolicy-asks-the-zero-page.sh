#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# get_mempolicy(MPOL_F_NODE | MPOL_F_ADDR) names a node the policy forbids
#
# Kernel 7.3.4-1~bpo13+1 (Debian), libnuma 2.0.19-1, python3 3.13.5-1, manpages
# 6.9.1, in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect, from get_mempolicy(2): "If no page has yet been allocated
# for the specified address, get_mempolicy() will allocate a page as if the
# thread had performed a read (load) access to that address, and return the ID
# of the node where that page was allocated": so a buffer that is bound to node
# 2 and not written yet answers 2, and has a page afterwards.
#
# What happens: a read of private anonymous memory allocates nothing, it maps
# the kernel's one page of zeroes, and the node of that page is the answer,
# whatever the policy is. On a machine with three nodes:
#
#   bound to        0  1  2
#   before a write  0  0  0   (or another number, but thrice the same: where
#                              the kernel's image lies, which KASLR moves)
#   after a write   0  1  2
#
# No page was allocated by the question (numa_maps has no anon= and no N=), it
# succeeds, and move_pages(2) with nodes = NULL says -EFAULT for the same page.
# Under MPOL_BIND the answer is a node that the buffer can't ever be on.
#
# Documentation: get_mempolicy(2) promises the contrary, as quoted.
#
# Who is hit: programs and tests that ask "where is this buffer, or where will
# it be" before first use, or to see that mbind(2) worked: they conclude that
# the device's node was refused, or call RAM what will be device memory.
#
# Instead: write first (one byte of each page), or madvise(MADV_POPULATE_WRITE);
# or ask with move_pages(2), whose -ENOENT and -EFAULT are "not there yet".

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
guest "python3" "usr/lib/python3.13 usr/lib/x86_64-linux-gnu/libnuma.so.1
	usr/lib/x86_64-linux-gnu/libffi.so.8" -m 768M -smp 1 \
	-object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M \
	-object memory-backend-ram,id=m2,size=256M -numa node,nodeid=0,memdev=m0,cpus=0 \
	-numa node,nodeid=1,memdev=m1 -numa node,nodeid=2,memdev=m2 <<'EOF'
cat >/ask.py <<'EOP'
import ctypes, errno, mmap
numa = ctypes.CDLL("libnuma.so.1", use_errno=True)
PAGE, BIND, F_NODE, F_ADDR = 4096, 2, 1, 2

def ask(address):
    node = ctypes.c_int(-1)
    assert numa.get_mempolicy(ctypes.byref(node), None, ctypes.c_ulong(0),
                              ctypes.c_void_p(address), F_NODE | F_ADDR) == 0
    return node.value

def moved(address):
    status = (ctypes.c_int * 1)()
    assert numa.numa_move_pages(0, ctypes.c_ulong(1), (ctypes.c_void_p * 1)(address),
                                None, status, 0) == 0
    return status[0] if status[0] >= 0 else errno.errorcode[-status[0]]

def maps(address):
    for line in open("/proc/self/numa_maps"):
        if int(line.split()[0], 16) == address:
            return line.strip().split(" ", 1)[1]

for bound in range(3):
    area = mmap.mmap(-1, 16 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    mask = ctypes.c_ulong(1 << bound)
    assert numa.mbind(ctypes.c_void_p(start), ctypes.c_ulong(16 * PAGE), BIND,
                      ctypes.byref(mask), ctypes.c_ulong(9), 0) == 0
    print("bound", bound, "before", ask(start), "move_pages", moved(start), flush=True)
    print("maps", bound, maps(start))
    area[0] = 1
    print("bound", bound, "after", ask(start), "move_pages", moved(start), flush=True)
EOP
python3 /ask.py
EOF

show() { grep -E '^(bound|maps) ' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
for node in 0 1 2; do
	expect "bound $node after $node move_pages $node" \
		"the control: after a write both say the node of the policy"
	expect "bound $node before [0-2] move_pages EFAULT" "before a write: move_pages says no -EFAULT"
	expect "maps $node bind:$node.*" "numa_maps has another policy"
	! grep -qE "^maps $node .* (anon|N[0-9]+)=" "$tmp/out" ||
		changed "the question allocated a page; now: $(show)"
done
[ "$(awk '/ before / { print $4 }' "$tmp/out" | sort -u | wc -l)" = 1 ] ||
	changed "the answer before a write follows the policy; now: $(show)"

echo "$name: as described:"
show | sed 's/^/    /'
