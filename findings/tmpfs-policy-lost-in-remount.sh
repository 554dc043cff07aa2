#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Two memory policies have a blank in their name, and a remount loses them
#
# Kernel 7.3.4-1~bpo13+1 (Debian), mount and findmnt of util-linux
# 2.41.5-0+deb13u1, numactl 2.0.19-1, in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect that "mount -o remount,size=..." of a tmpfs changes its size
# and nothing else, that each file of /proc says a mount option or a policy in
# one field, and that what has a blank in it is escaped (\040), as paths are.
#
# What happens: the kernel calls MPOL_PREFERRED_MANY "prefer (many)" and
# MPOL_WEIGHTED_INTERLEAVE "weighted interleave". It takes these words, blank
# included, as tmpfs's mpol=, and prints them raw:
#
#   /proc/mounts     t /mnt tmpfs rw,relatime,inode64,mpol=prefer (many):1 0 0
#                    (7 fields; field 5 is "(many):1", where dump's 0 belongs)
#   findmnt          rw,relatime,inode64,mpol=prefer
#   numa_maps        7f... prefer (many):0-1 ...  (what numa(7) calls the second
#                    field is two)
#
# mount(8) hands a remount the options that it read there. So with
# "prefer (many):1"
#
#   # mount -o remount,size=64M /mnt; echo $?
#   0
#   # grep /mnt /proc/mounts
#   t /mnt tmpfs rw,relatime,size=65536k,inode64,mpol=local 0 0
#
# The policy is gone, without a word: "mpol=prefer" with no node means local.
# Files made from then on have their pages where the writer runs: 16 MiB
# written before go to node 1, 16 MiB written afterwards to node 0. With
# "weighted interleave:0-1" the same remount fails, exit status 32, "Bad value
# for 'mpol'", though nobody gave an mpol. "interleave:0-1", no blank, stays.
#
# Documentation: tmpfs.rst and tmpfs(5) list prefer, bind, interleave and local
# alone, and refer to policies elsewhere; neither says that the other two are
# taken, nor under which name. fstab(5) says that blanks are \040 in such files.
#
# Who is hit: who spreads a tmpfs over ordinary and device memory, and whatever
# remounts it later for another reason (size, noexec, read-only); parsers of
# /proc/mounts and numa_maps that split at blanks.
#
# Instead: repeat the policy at each remount, in quotes
# (-o 'remount,size=64M,mpol=prefer (many):1'), or use policies without blanks;
# take the policy of numa_maps as all between the address and the first word
# with "=" or that is a known flag.

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	mount=2.41.5-0+deb13u1 util-linux=2.41.5-0+deb13u1 numactl=2.0.19-1"

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
guest "mount findmnt numactl" "" -m 512M -smp 1 \
	-object memory-backend-ram,id=m0,size=256M -object memory-backend-ram,id=m1,size=256M \
	-numa node,nodeid=0,memdev=m0,cpus=0 -numa node,nodeid=1,memdev=m1 <<'EOF'
shmem() { awk '$3 == "Shmem:" { print $4 }' /sys/devices/system/node/node1/meminfo; }
fill() {	# how many KiB of 16 MiB go to node 1
	before=$(shmem)
	dd if=/dev/zero of=$1 bs=1M count=16 2>/dev/null
	echo $(($(shmem) - before))
}
for policy in 'interleave:0-1' 'prefer (many):1' 'weighted interleave:0-1'; do
	echo "== $policy"
	/usr/bin/mount -t tmpfs -o "mpol=$policy" t /mnt; echo "mount $?"
	echo "fields $(awk '$2 == "/mnt" { print NF }' /proc/mounts)"
	echo "findmnt $(findmnt -n -o OPTIONS /mnt)"
	echo "before $(fill /mnt/a) of 16384"
	/usr/bin/mount -o remount,size=64M /mnt; echo "remount $?"
	echo "now $(grep ' /mnt ' /proc/mounts)"
	echo "after $(fill /mnt/b) of 16384"
	umount /mnt
done
echo "== what is advised"
/usr/bin/mount -t tmpfs -o 'mpol=prefer (many):1' t /mnt
/usr/bin/mount -o 'remount,size=64M,mpol=prefer (many):1' /mnt
echo "repeated $(grep ' /mnt ' /proc/mounts)"
numactl --preferred-many=0,1 cat /proc/self/numa_maps | head -n 1
EOF

# of POLICY: what was printed under its head
of() { awk -v head="== $1" '/^== / { on = $0 == head } on' "$tmp/out"; }
expect() { grep -qE "$3" <<<"$(of "$1")" || changed "$2; now: $(of "$1")"; }
between() {	# POLICY WORD FROM TO
	local kib
	kib=$(of "$1" | awk -v word="$2" '$1 == word { print $2 }')
	[ "${kib:--1}" -ge "$3" ] && [ "$kib" -le "$4" ]
}
many='prefer (many):1' weighted='weighted interleave:0-1'
for policy in interleave:0-1 "$many" "$weighted"; do
	expect "$policy" "tmpfs does not take mpol=$policy" '^mount 0$'
done
expect interleave:0-1 "the control: an ordinary policy is kept" '^now .*size=65536k.*mpol=interleave:0-1 0 0$'
expect interleave:0-1 "the control: 6 fields" '^fields 6$'
expect "$many" "the blank in /proc/mounts is no separator any more" '^fields 7$'
expect "$many" "findmnt reads the policy" 'mpol=prefer$'
between "$many" before 16000 16384 || changed "the policy did not place the pages: $(of "$many")"
expect "$many" "the remount does not succeed" '^remount 0$'
expect "$many" "the policy is not lost" '^now .*size=65536k.*mpol=local 0 0$'
between "$many" after 0 400 || changed "files after the remount are on node 1: $(of "$many")"
expect "$weighted" "the remount is not refused" '^remount 32$'
expect "$weighted" "mount says something else" "Bad value for 'mpol'"
expect "what is advised" "repeating the policy does not keep it" '^repeated .*mpol=prefer \(many\):1 0 0$'
expect "what is advised" "numa_maps has one field" '^[0-9a-f]+ prefer \(many\):0-1 '

echo "$name: as described:"
{ of "$many"; of "$weighted"; } | sed 's/^/    /'
