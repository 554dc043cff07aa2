# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What makes Debian systems: the toolchain root (setup), the packaging root (deb).
# It needs no privilege beyond user namespaces. Mirror and apt settings are the host's.
# To be sourced after lib.sh.

: "${cdm_cache:?lib.sh comes first}"

if [ "$(id -u)" -eq 0 ]; then
	bootstrap_mode=root
else
	bootstrap_mode=unshare
fi

# What this machine must have itself
need_on_host() {
	local need=() pair commands
	commands="mmdebstrap:mmdebstrap bwrap:bubblewrap git:git python3:python3 flock:util-linux"
	[ "$(id -u)" -eq 0 ] || commands+=" newuidmap:uidmap"
	for pair in $commands; do
		command -v "${pair%%:*}" >/dev/null || need+=("${pair##*:}")
	done
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need+=(debian-archive-keyring)
	[ ${#need[@]} -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] || die "please install: ${need[*]}"
	stage "installing ${need[*]}"
	logged setup-host install_on_host "${need[@]}"
}

install_on_host() {
	apt-get update && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$@"
}

# The mirror that the host's apt uses for Debian
mirror() {
	# shellcheck disable=SC2016 # for apt to expand
	apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' |
		awk -F'|' '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# bootstrap SUITES PACKAGES: a Debian trixie system, as a tar stream
bootstrap() {
	local uri suite lines=()
	uri=$(mirror)
	[ -n "$uri" ] || { echo "apt knows no Debian mirror" >&2; return 1; }
	apt-config dump | grep -E '^Acquire::(Check|http|https|Languages|ForceIPv4)' >"$cdm_cache/apt.conf" || true
	echo 'Acquire::Check-Valid-Until "false";' >>"$cdm_cache/apt.conf"
	for suite in $1; do
		lines+=("deb $uri $suite main")
	done
	printf '%s\n' "${lines[@]}" | mmdebstrap --variant=minbase --mode="$bootstrap_mode" --format=tar \
		--aptopt="$cdm_cache/apt.conf" --aptopt='APT::Install-Recommends "false"' \
		--keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
		--include="$2" trixie - -
}

# root_complete DIR SUITES PACKAGES: was it made from these?
root_complete() {
	[ -e "$1/.cdm-root" ] && [ "$(cat "$1/.cdm-root")" = "$2 $3" ]
}

# make_root DIR SUITES PACKAGES: unpacked, so that whoever calls this owns the files.
# Device nodes stay out. What was it made from is in .cdm-root: another list, another root.
make_root() {
	local dir=$1 new=$1.new
	rm -rf "$new"
	mkdir "$new"
	bootstrap "$2" "${3%,}" | tar -x -C "$new" --exclude='./dev/*'
	echo "$2 $3" >"$new/.cdm-root"
	rm -rf "$dir.old"
	[ ! -e "$dir" ] || mv "$dir" "$dir.old"
	mv "$new" "$dir"
	rm -rf "$dir.old"
}
