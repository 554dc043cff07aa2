#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The CDM selftests in virtual machines: builds a kernel and the tests from this
# tree, boots the kernel with QEMU, in the machine that "guests" names for each
# program, and runs the programs there. The machine's root is this system's, read
# only, so what the tests call must be installed here: numactl, kmod, util-linux, cxl,
# daxctl.
# Prints KTAP: a test for each program, and one for the log of each kernel.
#
# As the init of such a machine, this script is its PID 1.

test_dir=$(dirname "$(realpath "$0")")
kernel_dir=$(realpath "$test_dir/../../../..")

# ---------------------------------------------------------------------------
# In the guest: vmtest.sh BUILD-DIRECTORY PROGRAM..., as PID 1

# set_to VALUE FILE
set_to() {
	[ ! -e "$2" ] || echo "$1" >"$2"
}

# The root is the host's, with a tmpfs over it for what is written.
guest_root() {
	export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C
	mount -t tmpfs none /run
	mkdir /run/upper /run/work /run/root
	mount -t overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work overlay /run/root
	cd /run/root || exit 1
	mkdir -p proc sys dev tmp run scratch old
	mount -t devtmpfs none dev
	pivot_root . old
	exec chroot . "$BASH" "$test_dir/vmtest.sh" "$@" <dev/null >dev/ttyS1 2>&1
}

# What a large Linux server has on
guest_setup() {
	local controller device

	mount -t proc none /proc
	mount -t sysfs none /sys
	mkdir -p /dev/pts /dev/shm /dev/hugepages
	mount -t devpts none /dev/pts
	for device in /dev/shm /tmp /run; do
		mount -t tmpfs none $device
	done
	mount -t hugetlbfs none /dev/hugepages
	mount -t debugfs none /sys/kernel/debug
	mount -t tracefs none /sys/kernel/tracing
	mount -t cgroup2 none /sys/fs/cgroup
	ln -sf /proc/self/fd /dev/fd
	stty raw <&1

	set_to 1000 /sys/kernel/mm/ksm/pages_to_scan
	set_to 1 /sys/kernel/mm/ksm/run
	set_to 1 /proc/sys/kernel/numa_balancing
	set_to always /sys/kernel/mm/transparent_hugepage/enabled
	set_to 16 /proc/sys/vm/nr_hugepages
	# A node that is full takes longer to leave in an emulator than elsewhere.
	set_to 60000 /sys/kernel/mm/cdm/leave_timeout_ms

	echo 128M >/sys/block/zram0/disksize
	mkswap /dev/zram0 >/dev/null
	swapon -p 1 /dev/zram0
	swapon -p 1 /dev/vda
	mount -t ext4 /dev/vdb /scratch

	for controller in cpuset memory hugetlb pids cpu; do
		echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
	done
	mkdir /sys/fs/cgroup/command
	echo 0 >/sys/fs/cgroup/command/cgroup.procs
}

guest() {
	# Where nothing is mounted over it
	local build_dir=/old$1 program limit status
	shift

	guest_setup
	# Where modprobe looks, whoever calls it
	export MODPROBE_OPTIONS="-d $build_dir/modules"
	cd "$build_dir/tests/cdm" || exit 1
	limit=$(sed -n 's/^timeout=//p' settings)
	for program; do
		echo "@@ begin $program"
		echo "cdm vmtest: $program" >/dev/kmsg
		timeout -k 10 "${limit:-45}" "./$program" </dev/null
		status=$?
		# Whatever a program did: is anything on the device that must not be?
		if ! timeout -k 10 300 ./cdm-oracle </dev/null; then
			echo "not ok 1000 cdm-oracle"
			[ $status -ne 0 ] || status=1
		fi
		echo "@@ end $status"
	done
	echo "@@ done"
	# All of it has to be out before the machine goes.
	stty -F /dev/ttyS1 sane
	echo b >/proc/sysrq-trigger
}

if [ $$ -eq 1 ]; then
	[ -d /old ] || guest_root "$@"
	guest "$@"
	exit 1
fi

# ---------------------------------------------------------------------------
# On the host

set -u
shopt -s lastpipe

# shellcheck source=/dev/null
source "$test_dir/../kselftest/ktap_helpers.sh"

# What a kernel says if something is wrong with it
COMPLAINT='^(\[[^]]*\] *)*(WARNING: |Oops\b|INFO: task .* blocked|general protection fault'
COMPLAINT+='|UBSAN:|rust_kernel: panicked)|\bBUG: |kernel BUG at|Kernel panic|rcu: INFO: '
COMPLAINT+='|suspicious RCU usage|unable to handle .*fault'

build_dir=$kernel_dir/.cdm-vmtest
jobs=$(nproc)
limit=7200
build=1
fragments=()

usage() {
	cat <<EOF
usage: $0 [-d build_dir] [-j jobs] [-c fragment]... [-n] [-t seconds] [-h] [program]...

  -d  directory for the kernel, the tests and the logs (default: $build_dir)
  -j  jobs of make (default: $jobs)
  -c  more configuration for the kernel, such as kernel/configs/debug.config
  -n  build nothing: it is there from the last time
  -t  stop a machine after so many seconds (default: $limit)
  -h  this help

Without a program: all of them. LLVM= and the like are for make to see, in the
environment. A machine's options, in the file "guests":

  --cdm-nodes N    devices, each with a node (default 1)
  --cdm-size SIZE  of each (default 512M)
  --layout NODES   a letter for each node from 0 on: c CPUs and memory, m memory,
                   d a device, s spare, without anything; at the end an x for
                   each device that the firmware knows no node for (default: cc,
                   and a d for each device)
  --cxl N          CXL memory devices of --cdm-size, in one window (default 0)
  --far            the devices' memory is above 1 TiB
  --hotplug HOW    the devices can be unplugged, by pcie (pciehp) or acpi, and
                   QEMU's monitor is the virtio port cdm.qmp
  --mem MB         memory of all ordinary nodes together (default 1536)
  --append ARG     for the kernel's command line
EOF
}

die() {
	echo "Bail out! $*"
	exit "$KSFT_FAIL"
}

# logged NAME COMMAND...
logged() {
	local log=$build_dir/$1.log
	shift
	(
		set -e
		"$@"
	) >"$log" 2>&1 </dev/null
	# Not in a condition: set -e would be off in it.
	# shellcheck disable=SC2181
	[ $? -ne 0 ] || return 0
	tail -n 30 "$log" | sed 's/^/# /'
	die "failed, see $log: $*"
}

kmake() {
	make -C "$kernel_dir" O="$build_dir" -j"$jobs" "$@"
}

# The configuration: the fragments on allnoconfig. What they ask for must be in it.
configure() {
	local files=("$test_dir/config" "$test_dir/config.x86_64" "${fragments[@]}") missing

	kmake rustavailable
	kmake allnoconfig
	"$kernel_dir/scripts/kconfig/merge_config.sh" -m -Q -O "$build_dir" "$build_dir/.config" \
		"${files[@]}"
	kmake olddefconfig
	# The last word on each symbol
	missing=$(awk -F= '
		FNR == NR { is[$1] = $2; next }
		/^CONFIG_/ { want[$1] = $2 }
		END { for (s in want) if (want[s] != (s in is ? is[s] : "n")) print s "=" want[s] }
	' "$build_dir/.config" "${files[@]}")
	echo "cannot be had: ${missing:-nothing}"
	[ -z "$missing" ]
}

build_kernel() {
	logged config configure
	logged kernel kmake bzImage modules
	rm -rf "$build_dir/modules"
	logged modules kmake INSTALL_MOD_PATH="$build_dir/modules" modules_install
}

build_tests() {
	logged headers kmake headers
	rm -rf "$build_dir/tests"
	logged kselftest make -C "$kernel_dir/tools/testing/selftests" -j"$jobs" TARGETS=cdm \
		O="$build_dir" KDIR="$build_dir" INSTALL_PATH="$build_dir/tests" install
}

# The options of a program's machine
options_of() {
	awk -v program="$1" '$1 ~ /^#/ { next }
		{ name = $1; $1 = ""; options[name] = substr($0, 2) }
		END { print program in options ? options[program] : options["*"] }' \
		"$test_dir/guests"
}

# hmat LAYOUT: adds to qemu what the firmware says of distances: of the nodes, and of
# the host bridge of CXL, which is behind them. The rest say the devices (CDAT).
hmat() {
	local port=${#1} from to kinds=$1p part latency bandwidth

	qemu+=(-machine hmat=on -numa "node,nodeid=$port"
		-object "acpi-generic-port,id=cxl-port,pci-bus=cxl.1,node=$port")
	for ((from = 0; from < port; from++)); do
		[ "${kinds:from:1}" = c ] || continue
		for ((to = 0; to <= port; to++)); do
			[[ ${kinds:to:1} == [cmp] ]] || continue
			latency=140 bandwidth=32
			[ $from != $to ] || latency=80 bandwidth=64
			part=hmat-lb,initiator=$from,target=$to,hierarchy=memory
			qemu+=(-numa "$part,data-type=access-latency,latency=$latency"
				-numa "$part,data-type=access-bandwidth,bandwidth=${bandwidth}G")
		done
	done
}

# machine OPTION...: sets qemu, the command, and append, for the kernel's
machine() {
	local devices=1 size=512M layout='' far='' hotplug='' bits='' mem=1536 cxl=0
	local cpus=2 left parts part cpu=0 device=0 nid kind node nodes=()

	append="console=ttyS0 panic=-1 nokaslr tsc=reliable no_timer_check nowatchdog page_owner=on"
	append+=" rcupdate.rcu_cpu_stall_timeout=300 log_buf_len=4M loglevel=7"
	while [ $# -gt 0 ]; do
		case $1 in
		--cdm-nodes)	devices=$2; shift ;;
		--cdm-size)	size=$2; shift ;;
		--layout)	layout=$2; shift ;;
		--cxl)		cxl=$2; shift ;;
		--far)		far=1 ;;
		--hotplug)	hotplug=$2; shift ;;
		--mem)		mem=$2; shift ;;
		--append)	append+=" $2"; shift ;;
		*)		die "$test_dir/guests: $1" ;;
		esac
		shift
	done
	[ -n "$layout" ] || layout=cc$(printf 'd%.0s' $(seq "$devices"))

	qemu=(qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot)
	# Just below 1 TiB is AMD's HyperTransport: nothing can be plugged in there.
	[ -z "$hotplug" ] || bits=,phys-bits=39
	[ -z "$far" ] || bits=,phys-bits=46
	# 5-level paging, and string instructions that are emulated byte by byte, only
	# cost time.
	if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm) ' /proc/cpuinfo; then
		qemu+=(-machine "q35,accel=kvm" -cpu "host,la57=off$bits")
	else
		qemu+=(-machine "q35,accel=tcg"
			-cpu "max,la57=off,erms=off,fsrm=off,fsrs=off$bits")
	fi
	[ "$cxl" = 0 ] || qemu+=(-machine cxl=on)
	# What could be plugged in has its place before the 64-bit BARs.
	qemu+=(-smp "$cpus,sockets=2" -m "${mem}M${far:+,slots=1,maxmem=1100G}"
		-device virtio-rng-pci)

	kind=${layout//[!cm]/}
	left=$mem parts=${#kind}
	kind=${layout//[!c]/}
	for ((nid = 0; nid < ${#layout}; nid++)); do
		kind=${layout:nid:1}
		node=node,nodeid=$nid
		case $kind in
		c | m)
			part=$((left / parts)) left=$((left - left / parts)) parts=$((parts - 1))
			qemu+=(-object "memory-backend-ram,id=ram$nid,size=${part}M")
			node+=,memdev=ram$nid
			;;
		d | x)
			qemu+=(-object "memory-backend-ram,id=mem$nid,size=$size,share=on")
			part=
			if [ -n "$hotplug" ]; then
				part=pcie-root-port,id=cdm$device-port,chassis=$nid,slot=$nid
				# With room for it to come back at another address
				qemu+=(-device "$part,pref64-reserve=4G")
				part=,bus=cdm$device-port
			fi
			qemu+=(-device "ivshmem-plain,id=cdm$device,memdev=mem$nid$part")
			device=$((device + 1))
			;;
		esac
		if [ "$kind" = c ]; then
			part=${layout//[!c]/}
			part=$((cpus / ${#part}))
			node+=,cpus=$cpu-$((cpu + part - 1))
			cpu=$((cpu + part))
		fi
		[ "$kind" = x ] || nodes+=(-numa "$node")
		# QEMU makes a node without memory only for an initiator.
		case $kind in
		d | s)
			part=acpi-generic-initiator,id=gi$nid,pci-dev=cdm$((device - 1)),node=$nid
			nodes+=(-object "$part")
			;;
		esac
	done
	qemu+=("${nodes[@]}")

	if [ -n "$hotplug" ]; then
		# Its two ends meet in a socket.
		qemu+=(-chardev "socket,id=qmp,path=$work/qmp,server=on,wait=off"
			-mon "chardev=qmp,mode=control"
			-chardev "socket,id=qmp-port,path=$work/qmp" -device virtio-serial-pci
			-device "virtserialport,chardev=qmp-port,name=cdm.qmp")
	fi
	[ "$hotplug" != pcie ] ||
		qemu+=(-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off)

	truncate -s 256M "$work/swap"
	truncate -s 1G "$work/scratch"
	mkswap -q "$work/swap" >/dev/null
	mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1 "$work/scratch"
	for device in swap scratch; do
		qemu+=(-drive "if=none,id=$device,file=$work/$device,format=raw,cache=unsafe"
			-device "virtio-blk-pci,drive=$device")
	done
	qemu+=(-fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
		-device "virtio-9p-pci,fsdev=root,mount_tag=root")

	# Below one host bridge, a root port for each; behind all that has to be on
	# another bus
	if [ "$cxl" != 0 ]; then
		qemu+=(-device "pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1,hdm_for_passthrough=true"
			-machine "cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=4G")
	fi
	for ((device = 0; device < cxl; device++)); do
		part=cxl-rp,port=$device,bus=cxl.1,id=rp$device,chassis=0,slot=$((device + 2))
		qemu+=(-object "memory-backend-ram,id=cxl$device-mem,size=$size" -device "$part")
		part=cxl-type3,bus=rp$device,volatile-memdev=cxl$device-mem,sn=$((device + 1))
		qemu+=(-device "$part")
	done
	[ "$cxl" = 0 ] || hmat "${layout//x/}"

	append+=" root=root rootfstype=9p ro"
	append+=" rootflags=trans=virtio,version=9p2000.L,msize=512000,cache=loose"
}

# run_guest OPTIONS PROGRAM...
run_guest() {
	local options=$1 log=$build_dir/guest$((++guests)).log current='' ran=' ' line program
	shift

	work=$(mktemp -d "$build_dir/run.XXXXXX")
	# shellcheck disable=SC2086 # several words
	machine $options
	echo "# guest$guests${options:+ $options}: $*"
	rm -f "$log"
	timeout "$limit" "${qemu[@]}" -serial "file:$log" -chardev stdio,id=output,signal=off \
		-serial chardev:output -kernel "$build_dir/arch/x86/boot/bzImage" \
		-append "$append init=$test_dir/vmtest.sh -- $build_dir $*" </dev/null 2>&1 |
	while IFS= read -r line; do
		line=${line%$'\r'}
		case $line in
		"@@ begin "*)
			current=${line#@@ begin }
			;;
		"@@ end "*)
			ran+="$current "
			case ${line#@@ end } in
			0)		ktap_test_pass "$current" ;;
			"$KSFT_SKIP")	ktap_test_skip "$current" ;;
			*)		ktap_test_fail "$current" ;;
			esac
			;;
		"@@ done")
			;;
		*)
			echo "#   $line"
			;;
		esac
	done
	for program; do
		[[ $ran == *" $program "* ]] || ktap_test_fail "$program: the guest ended"
	done
	# What the tests make the kernel say is no complaint.
	if [ -s "$log" ] && ! grep -E "$COMPLAINT" "$log" | sed 's/^/#   /' | grep .; then
		ktap_test_pass "the log of guest$guests"
	else
		ktap_test_fail "the log of guest$guests: $log"
	fi
	rm -rf "$work"
}

main() {
	local option programs=() program options machines=() all tool

	while getopts 'd:j:c:nt:h' option; do
		case $option in
		d)	build_dir=$OPTARG ;;
		j)	jobs=$OPTARG ;;
		c)	fragments+=("$(realpath "$OPTARG")") ;;
		n)	build= ;;
		t)	limit=$OPTARG ;;
		h)	usage; exit 0 ;;
		*)	usage >&2; exit 1 ;;
		esac
	done
	shift $((OPTIND - 1))

	PATH=$PATH:/usr/sbin:/sbin
	ktap_print_header
	[ "$(uname -m)" = x86_64 ] || {
		ktap_skip_all "only for x86_64"
		exit "$KSFT_SKIP"
	}
	for tool in qemu-system-x86_64 mkswap mkfs.ext4 numactl modprobe cxl daxctl; do
		command -v $tool >/dev/null || die "$tool is missing"
	done
	mkdir -p "$build_dir"
	build_dir=$(realpath "$build_dir")
	if [ -n "$build" ]; then
		echo "# building the kernel in $build_dir"
		build_kernel
		echo "# building the tests"
		build_tests
	fi

	all=$(sed -n 's/^cdm://p' "$build_dir/tests/kselftest-list.txt")
	for program in "${@:-$all}"; do
		# shellcheck disable=SC2206 # one word each
		programs+=($program)
	done
	for program in "${programs[@]}"; do
		grep -qx "$program" <<<"$all" || die "there is no $program, only: ${all//$'\n'/ }"
	done

	# Programs in the same machine run in one guest.
	mapfile -t machines < <(for program in "${programs[@]}"; do
		options_of "$program"
	done | sort -u)
	ktap_set_plan $((${#programs[@]} + ${#machines[@]}))
	guests=0
	for options in "${machines[@]}"; do
		all=()
		for program in "${programs[@]}"; do
			[ "$(options_of "$program")" != "$options" ] || all+=("$program")
		done
		run_guest "$options" "${all[@]}"
	done
	ktap_finished
}

main "$@"
