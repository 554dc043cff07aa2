#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# migratepages says nothing and exits with 0 when pages stayed where they were
#
# numactl (which has migratepages) and libnuma 2.0.19-1, python3 3.13.5-1, kernel
# 7.3.4-1~bpo13+1 (all Debian), in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that "migratepages PID 0 1" says so, or fails, when it could
# not empty node 0: it is the tool for that, and migratepages(8) has "will move
# all pages if invoked from root".
#
# What happens, run by root, for a process with 256 pages on node 0, of which 64
# wait in a pipe (vmsplice(2)), so that something besides the process holds them:
#
#   # migratepages $pid 0 1; echo $?
#   0
#   # grep ... /proc/$pid/numa_maps
#   ... N0=64 N1=192 ...
#
# migrate_pages(2) does tell: asked again it returns 66, the number of pages not
# moved (2 for the same program if it has nothing in a pipe). migratepages takes
# a negative number for a failure and drops every other.
#
# Documentation: migratepages(8) as quoted, and no word on its exit status;
# migrate_pages(2) explains the number.
#
# Who is hit: scripts that empty a node, a device's for instance, before its
# memory is taken offline: they go on, and the offlining then fails, or blocks.
# Pages held by pipes, sockets that send without copying, asynchronous reads
# and writes and device drivers are the usual ones.
#
# Instead: add up N<node>= in /proc/PID/numa_maps afterwards, by range; or call
# migrate_pages(2) and look at the number, which need not be 0 for a process
# whose own data have all moved, as seen above.

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
guest "python3 numactl migratepages" "usr/lib/python3.13 usr/lib/x86_64-linux-gnu/libnuma.so.1
	usr/lib/x86_64-linux-gnu/libffi.so.8" -m 512M -smp 1 \
	-object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M \
	-numa node,nodeid=0,memdev=m0,cpus=0 -numa node,nodeid=1,memdev=m1 <<'EOF'
cat >/hold.py <<'EOP'
import ctypes, fcntl, mmap, os, subprocess, sys
numa, libc = ctypes.CDLL("libnuma.so.1"), ctypes.CDLL(None)
PAGE, held = 4096, int(sys.argv[1])

class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]

def where():
    """The node counts of the area, as numa_maps has them."""
    for line in open("/proc/self/numa_maps"):
        words = line.split()
        if int(words[0], 16) == start:
            return " ".join(word for word in words if word[0] == "N")

area = mmap.mmap(-1, 256 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
for page in range(256):
    area[page * PAGE] = 1
if held:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    assert libc.vmsplice(writer, ctypes.byref(Iovec(start, held * PAGE)),
                         ctypes.c_ulong(1), 0) == held * PAGE
print(held, "before:", where())
run = subprocess.run(["migratepages", str(os.getpid()), "0", "1"],
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(held, "migratepages:", run.returncode, repr(run.stdout), where())
numa.numa_parse_nodestring.restype = ctypes.c_void_p
nodes = [ctypes.c_void_p(numa.numa_parse_nodestring(text)) for text in (b"0", b"1")]
print(held, "migrate_pages:", numa.numa_migrate_pages(os.getpid(), *nodes))
EOP
numactl --membind=0 python3 /hold.py 0
numactl --membind=0 python3 /hold.py 64
EOF

show() { grep -E '^(0|64) ' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qE "^$1\$" "$tmp/out" || changed "$2; now: $(show)"; }
expect '0 before: N0=256' "the control: the pages are not on node 0 before"
expect "0 migratepages: 0 '' N1=256" "the control: not all pages that nobody holds go to node 1"
expect '64 before: N0=256' "the pages are not on node 0 before"
expect "64 migratepages: 0 '' N0=64 N1=192" "migratepages says something, fails, or leaves another number"
told() { awk -v held="$1" '$1 == held && $2 == "migrate_pages:" { print $3 }' "$tmp/out"; }
case $(told 0) in
[0-9] | [1-5][0-9]) ;;
*) changed "the control: migrate_pages(2) says $(told 0)" ;;
esac
[ "$(told 64)" -ge 64 ] || changed "migrate_pages(2) does not tell; now: $(show)"

echo "$name: as described (held by a pipe, what, ...):"
show | sed 's/^/    /'
