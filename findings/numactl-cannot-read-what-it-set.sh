#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# With --balancing, libnuma says that a bound program may use every node
#
# numactl and libnuma 2.0.19-1, kernel 7.3.4-1~bpo13+1 (both Debian), in QEMU
# 1:10.0.13+ds-0+deb13u1.
#
# One would expect that "numactl --show" and numa_get_membind(3), "the mask of
# nodes from which memory can currently be allocated", say what numactl of the
# same version has just set.
#
# What happens, with nodes 0 to 2:
#
#   numactl --membind=1 numactl --show
#       policy: bind            membind: 1
#   numactl --balancing --membind=1 numactl --show
#       policy: [8194]          membind: 0 1 2
#   numactl --interleave=0,1 numactl --show
#       policy: interleave      interleavemask: 0 1
#   numactl --weighted-interleave=0,1 numactl --show
#       policy: [6]             (no interleavemask line)
#
# The binding itself is there and holds: numa_maps says bind=balancing:1 and
# all fresh pages are on node 1. Only the reader fails: libnuma compares the
# mode that get_mempolicy(2) returns with MPOL_BIND as it is, while 8194 is
# MPOL_BIND | MPOL_F_NUMA_BALANCING; and it takes every mode that is not
# MPOL_BIND for "all nodes". No error, no warning, exit status 0.
#
# Documentation: numactl(8) has --balancing and --weighted-interleave, numa(3)
# has numa_get_membind; neither has a word on this.
#
# Who is hit: programs that ask libnuma whether they are confined and where (to
# size heaps, arenas, huge page pools or one worker per node): under --balancing
# they think that all nodes are theirs, a device's among them. And people who
# verify a service's binding by "numactl --show".
#
# Instead: read /proc/PID/numa_maps, or call get_mempolicy(2) and take the mode
# flags (MPOL_MODE_FLAGS, bits 13 to 15) off first; to confine a program and
# have it know, use cpuset.mems, which numa_get_mems_allowed(3) reads.

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
guest "numactl" "" -m 768M -smp 1 \
	-object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M \
	-object memory-backend-ram,id=m2,size=256M -numa node,nodeid=0,memdev=m0,cpus=0 \
	-numa node,nodeid=1,memdev=m1 -numa node,nodeid=2,memdev=m2 <<'EOF'
for options in "--membind=1" "--balancing --membind=1" "--interleave=0,1" "--weighted-interleave=0,1"; do
	echo "== $options"
	numactl $options numactl --show; echo "status $?"
	# The heap is memory that this very process has just made.
	echo "heap $(numactl $options cat /proc/self/numa_maps | grep ' heap ')"
done
EOF

# of OPTIONS: what was printed under their head
of() { awk -v head="== $1" '/^== / { on = $0 == head } on' "$tmp/out"; }
expect() { of "$1" | grep -qE "$2" || changed "$3; now: $(of "$1")"; }
for options in "--membind=1" "--balancing --membind=1" "--interleave=0,1" "--weighted-interleave=0,1"; do
	expect "$options" '^status 0$' "numactl --show fails"
done
expect "--membind=1" '^policy: bind *$' "the control: bind is called by its name"
expect "--membind=1" '^membind: 1 *$' "the control: membind is node 1"
expect "--membind=1" '^heap .* bind:1 .* N1=[0-9]+ ' "the control: the heap is on node 1"
expect "--balancing --membind=1" '^heap .* bind=balancing:1 .* N1=[0-9]+ ' \
	"--balancing: the heap is not bound to node 1"
! of "--balancing --membind=1" | grep -qE '^heap .* N[02]=' ||
	changed "--balancing: the heap is elsewhere; now: $(of "--balancing --membind=1")"
expect "--balancing --membind=1" '^policy: \[8194\]' "--balancing: the policy has a name"
expect "--balancing --membind=1" '^membind: 0 1 2 *$' "--balancing: membind says less than all nodes"
expect "--interleave=0,1" '^interleavemask: 0 1 *$' "the control: the mask of --interleave"
expect "--weighted-interleave=0,1" '^heap .* weighted interleave:0-1 ' "--weighted-interleave is not set"
expect "--weighted-interleave=0,1" '^policy: \[6\]' "--weighted-interleave: the policy has a name"
! of "--weighted-interleave=0,1" | grep -q '^interleavemask:' ||
	changed "--weighted-interleave: there is a mask; now: $(of "--weighted-interleave=0,1")"

echo "$name: as described:"
grep -E '^(==|policy:|membind:|interleavemask:|heap)' "$tmp/out" | sed 's/^/    /'
