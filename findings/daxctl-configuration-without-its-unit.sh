#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# daxctl's "persistent reconfiguration" does nothing at boot, and says nothing
#
# daxctl and ndctl 81-1, udev and systemd 257.13-1~deb13u1, kernel
# 7.3.4-1~bpo13+1 (all Debian), in QEMU 1:10.0.13+ds-0+deb13u1.
#
# One would expect, from daxctl-reconfigure-device(1), "PERSISTENT
# RECONFIGURATION": with a section for a device in /etc/daxctl.conf.d/ "certain
# dax devices are always reconfigured into a target configuration every boot".
#
# What happens: the package has the configuration, the code that reads it, and a
# udev rule that has systemd start daxdev-reconfigure@DEVICE.service when a dax
# device comes. It has no such unit, nor has any other package that is made of
# the same source. systemd ignores what a device wants and is not there: the
# device stays in mode devdax after each boot, with no message of udev, daxctl
# or systemd. The configuration itself is right: applied by hand it works.
#
# Documentation: the manual page promises it and names no unit to be written.
#
# Who is hit: whoever has a namespace of persistent memory brought up as
# system-ram in this way (sections go by nvdimm.uuid). After the next reboot the
# node is missing, and what is bound to it fails, or is in RAM.
#
# Instead: write the unit, as /etc/systemd/system/daxdev-reconfigure@.service,
# with Type=oneshot and ExecStart=/usr/bin/daxctl reconfigure-device
# --check-config %I, which is what the rule was made for; and with --force where
# the kernel onlines memory by itself, as Debian's does.

set -euo pipefail
export LC_ALL=C

packages="busybox-static=1:1.37.0-6+b9 qemu-system-x86=1:10.0.13+ds-0+deb13u1
	linux-binary-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	linux-modules-7.3.4+deb13-amd64=7.3.4-1~bpo13+1
	ndctl=81-1 daxctl=81-1 udev=257.13-1~deb13u1 systemd=257.13-1~deb13u1"

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
loader=("$tmp/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib:$lib/systemd")
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
modules=usr/lib/modules/7.3.4+deb13-amd64/kernel/drivers
guest "ndctl daxctl udevadm systemd-escape" "$modules/nvdimm $modules/acpi/nfit $modules/dax
	usr/lib/udev/rules.d/90-daxctl-device.rules usr/share/daxctl" -machine nvdimm=on \
	-m 1G,slots=2,maxmem=4G -smp 1 -object memory-backend-ram,id=nv,size=768M \
	-device nvdimm,memdev=nv <<'EOF'
mkdir -p /run /etc/daxctl.conf.d
# daxctl's man page: else it wants --force
echo offline >/sys/devices/system/memory/auto_online_blocks
cd /usr/lib/modules/*/kernel/drivers
for m in nvdimm/libnvdimm acpi/nfit/nfit nvdimm/nd_btt nvdimm/nd_pmem dax/dax_pmem dax/device_dax dax/kmem; do
	unxz $m.ko.xz && insmod $m.ko
done
cd /
ndctl create-namespace -f -e namespace0.0 -m devdax -M mem >/dev/null
uuid=$(ndctl list -N | sed -n 's/.*"uuid":"\([^"]*\)".*/\1/p')
printf '[reconfigure-device memory]\nnvdimm.uuid = %s\nmode = system-ram\n' "$uuid" >/etc/daxctl.conf.d/memory.conf

# The device comes, as at boot
ln -s udevadm /usr/bin/systemd-udevd
systemd-udevd --daemon 2>/dev/null
udevadm trigger --settle --action=add /sys/bus/dax/devices/dax0.0
udevadm info -q property /sys/bus/dax/devices/dax0.0 | grep SYSTEMD_WANTS
mode() { daxctl list | sed -n 's/.*"mode":"\(.*\)".*/\1/p'; }
echo "configured: $(mode)"
daxctl reconfigure-device --check-config dax0.0 2>&1 | grep '^reconfigured'
echo "by hand: $(mode)"
EOF

show() { grep -E '^(SYSTEMD_WANTS=|configured: |reconfigured |by hand: )' "$tmp/out" || cat "$tmp/out"; }
expect() { grep -qxF "$1" "$tmp/out" || changed "$2; now: $(show)"; }
expect 'SYSTEMD_WANTS=daxdev-reconfigure@dev-dax0.0.service' "the rule wants another unit, or none"
units=$(find "$tmp/root" -name 'daxdev-reconfigure*')
[ -z "$units" ] || changed "there is a unit: ${units#"$tmp/root"}"
expect 'configured: devdax' "the device was reconfigured when it came"
expect 'reconfigured 1 device' "the control: the configuration is wrong"
expect 'by hand: system-ram' "the control: by hand the configuration does nothing, either"

echo "$name: as described:"
show | sed 's/^/    /'
echo "    no daxdev-reconfigure@.service in daxctl, ndctl or what they depend on"
