#!/usr/bin/env bash
# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

# Make a small system of another release of Debian, or of Ubuntu, in a folder,
# and run the tests or another command there, in a copy of this checkout.
#
# Usage: tools/debian-system.sh SUITE FOLDER [COMMAND...]
#
#   tools/debian-system.sh trixie /var/tmp/trixie
#   tools/debian-system.sh trixie /var/tmp/trixie tools/quickstart.sh
#
# SUITE is a name that debootstrap knows, such as trixie; FOLDER is new, or one
# that this script made; COMMAND is tools/run-tests.sh by default. The system
# is kept, with the packages and environments that the command installs there,
# so the next time is quick. The copy has the commits and all uncommitted
# changes; no file comes back from it. Processes and mounts have namespaces of
# their own: they end with the command, and with this script, however it ends.
# The network is this machine's.
#
# It needs root, debootstrap and git. Debian's mirrors, proxies, certificate
# authorities and pip's settings are this machine's. Environment: PIP_*,
# NOVA_SG_*, the proxies and RUN_DEADLINE are passed to the command.
# DEBIAN_MIRROR is the address of a mirror, for a machine whose apt has none, and
# for Ubuntu, which also takes the package ubuntu-keyring and a debootstrap that
# knows the release:
#
#   DEBIAN_MIRROR=http://archive.ubuntu.com/ubuntu \
#     tools/debian-system.sh noble /var/tmp/noble
set -euo pipefail

# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Where the copy of the checkout is in the system.
COPY=/srv/nova_sg
# The packages that quickstart.sh needs; run-tests.sh installs the others.
PACKAGES=ca-certificates,git,python3

usage() {
    sed -n '/^# Make a small/,/^set/{/^set/d;s/^# \{0,1\}//;p}' \
        "${BASH_SOURCE[0]}"
}

# isolated COMMAND...: run a command with processes and mounts of its own,
# which all end when it does, or this script, even by SIGKILL.
isolated() {
    local status=0
    # A shell's background command ignores two signals.
    setpriv --pdeathsig KILL env --default-signal=INT,QUIT \
        unshare --mount --pid --fork --kill-child "$@" <&0 &
    isolated_pid=$!
    wait "$isolated_pid" || status=$?
    isolated_pid=
    return "$status"
}
isolated_pid=

# bash acts on a signal only once a command in the foreground has ended, and
# unshare ignores SIGTERM: hence the background above, and SIGKILL.
interrupt() {
    trap - INT TERM HUP
    if [[ -n $isolated_pid ]]; then
        kill -KILL "$isolated_pid" 2>/dev/null || true
        wait "$isolated_pid" 2>/dev/null || true
    fi
    exit "$1"
}

check_requirements() {
    local missing=() program
    ((EUID == 0)) || die "needs root, for mounts and chroot: sudo $0 ..."
    for program in debootstrap git setpriv unshare; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    # The last two are Debian's package util-linux.
    ((${#missing[@]} == 0)) ||
        die "not found: ${missing[*]}; install what is missing:" \
            'apt-get update && apt-get install debootstrap git util-linux'
    git -C "$ROOT" rev-parse --quiet --verify HEAD >/dev/null ||
        die "$ROOT is no git checkout with a commit"
    isolated true || die 'this machine allows no mount and process namespaces'
}

# mirrors LABEL: print the addresses of Debian's archive of that label, from
# apt's sources.
mirrors() {
    # shellcheck disable=SC2016 # It is apt-get that replaces these.
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        'Origin: Debian' "Label: $1" 2>/dev/null |
        grep -E '^(https?|file):' | sed 's,/*$,,' | sort -u
}

# Print this machine's mirror of Debian.
find_mirror() {
    local mirror=${DEBIAN_MIRROR:-}
    [[ -n $mirror ]] || read -r mirror < <(mirrors Debian) || true
    if [[ -z $mirror ]]; then
        die "apt's sources here have no mirror of Debian that debootstrap" \
            'could use; run "apt-get update" and start again, or set' \
            'DEBIAN_MIRROR to the address of one'
    fi
    printf '%s\n' "$mirror"
}

# print_release MIRROR SUITE: print the file that describes a suite.
print_release() {
    case $1 in
    file:*) cat "${1#file:}/dists/$2/InRelease" ;;
    *) wget --quiet --output-document=- "$1/dists/$2/InRelease" ;;
    esac 2>/dev/null
}

# exists_suite MIRROR SUITE
exists_suite() {
    print_release "$@" >/dev/null
}

# find_components MIRROR: print the parts of the archive that have the packages
# of bindep.txt.
find_components() {
    local components=main
    if print_release "$1" "$suite" | grep '^Origin: Ubuntu' >/dev/null; then
        components='main universe'
    fi
    printf '%s\n' "$components"
}

# Make the system, unless it is there. A mark says how far that came.
make_system() {
    local mark=$folder/.nova-sg-suite mirror components
    if [[ -d $folder && ! -e $mark ]] &&
        [[ -n $(find "$folder" -mindepth 1 -print -quit) ]]; then
        die "$folder is neither empty nor a system that this script made"
    fi
    mkdir -p "$folder"
    [[ -e $mark ]] || : >"$mark"
    # The lock is held until the last process of this script has ended.
    exec {lock}<"$mark"
    flock --nonblock "$lock" || die "$folder is in use by another $0"
    case $(<"$mark") in
    "$suite made")
        say "The system in $folder is there ($suite)"
        return
        ;;
    *' made')
        die "the system in $folder is $(cut -d ' ' -f 1 "$mark")," \
            "not $suite; take another folder, or remove it"
        ;;
    esac
    mirror=$(find_mirror)
    components=$(find_components "$mirror")
    say "Making a system ($suite) in $folder, from $mirror"
    find "$folder" -mindepth 1 -xdev ! -path "$mark" -delete
    # The mounts of debootstrap end with it, too.
    isolated debootstrap --variant=minbase --include="$PACKAGES" \
        --components="${components// /,}" "$suite" "$folder" "$mirror" </dev/null > >(sed '/^I: /d' >&2) ||
        die "debootstrap could not make the system ($suite)"
    write_sources "$mirror" "$components"
    printf '%s made\n' "$suite" >"$mark"
}

# Add the updates of a release to the sources, where it has any.
write_sources() {
    local mirror=$1 components=$2 archive updates
    printf 'deb %s %s %s\n' "$mirror" "$suite" "$components" \
        >"$folder/etc/apt/sources.list"
    # Ubuntu has its security updates beside the others.
    while read -r archive; do
        for updates in "$suite-updates" "$suite-security"; do
            if exists_suite "$archive" "$updates"; then
                printf 'deb %s %s %s\n' "$archive" "$updates" "$components"
            fi
        done
    done >>"$folder/etc/apt/sources.list" \
        < <(printf '%s\n' "$mirror" && mirrors Debian-Security)
}

# Copy this machine's network settings: names, proxies, certificate
# authorities.
copy_settings() {
    local name said authorities=/usr/local/share/ca-certificates
    for name in hosts resolv.conf hostname; do
        rm -f "$folder/etc/$name"
        [[ ! -e /etc/$name ]] || cp -L "/etc/$name" "$folder/etc/$name"
    done
    apt-config dump |
        grep -iE '^Acquire::(https?|Check-[^:]*|Retries|ForceIPv[46])[: ]' \
            >"$folder/etc/apt/apt.conf.d/90nova-sg" || true
    mkdir -p "$folder$authorities"
    find "$folder$authorities" -mindepth 1 -delete
    if [[ -d $authorities ]]; then
        cp -RL "$authorities/." "$folder$authorities"
    fi
    said=$(chroot "$folder" env --unset=TMPDIR update-ca-certificates 2>&1) ||
        die "update-ca-certificates failed: $said"
}

# Print the files and folders of pip's settings, and those that they name,
# without the system's certificates, which copy_settings has copied.
pip_files() {
    local files=(
        /etc/pip.conf /etc/xdg/pip/pip.conf
        "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf"
        ${PIP_CONFIG_FILE:+"$PIP_CONFIG_FILE"}
    )
    local file settings
    for file in "${files[@]}"; do
        [[ ! -f $file ]] || printf '%s\n' "$file"
    done
    settings=$(
        cat "${files[@]}" 2>/dev/null || true
        env | grep '^PIP_' | grep -v '^PIP_CACHE_DIR=' || true
    )
    # The pages of an index in files refer to files beside it.
    grep -oE 'file:///[^ ]+' <<<"$settings" |
        sed 's,^file://,,; s,/*$,,' | xargs --no-run-if-empty dirname |
        grep -vx / | sort -u || true
    grep -oE '(^|[= ])/[^ ]+' <<<"$settings" | tr -d '= ' |
        grep -v '^/etc/ssl/' | sort -u || true
}

# Update the copy of the checkout to this commit, and add uncommitted changes.
# Files that the copy ignores, such as environments, stay there.
copy_checkout() {
    local copy=$folder$COPY name
    say "Copying the checkout to $copy"
    trust_checkout
    mkdir -p "$copy"
    [[ -e $copy/.git ]] || git init --quiet "$copy"
    git -C "$copy" fetch --quiet --tags --force \
        --upload-pack 'git -c safe.directory=* upload-pack' "$ROOT" HEAD
    git -C "$copy" reset --quiet --hard FETCH_HEAD
    git -C "$copy" clean --quiet -d --force --force
    while IFS= read -r -d '' name; do
        rm -rf "${copy:?}/$name"
        if [[ -e $ROOT/$name || -L $ROOT/$name ]]; then
            mkdir -p "$(dirname "$copy/$name")"
            cp -RP --preserve=mode,timestamps "$ROOT/$name" "$copy/$name"
        fi
    done < <(
        git -C "$ROOT" diff-index --name-only --no-renames -z HEAD
        git -C "$ROOT" ls-files --others --exclude-standard -z
    )
}

# enter FOLDER PLACE FILES COMMAND...: the first process of its space. It
# mounts what a system has, shows it every one of the files, read-only, and
# runs a command in a place of the system.
#
# It stays the first process, which reaps orphaned processes.
# shellcheck disable=SC2317 # It is called, by another shell.
enter() {
    local system=$1 place=$2 shown=$3 file status=0
    shift 3
    # If the root is a mount itself, a command can make such namespaces, too.
    mount --bind "$system" "$system"
    mount -t proc proc "$system/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sys "$system/sys"
    mount -t tmpfs -o nosuid,nodev,mode=1777 shm "$system/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 \
        devpts "$system/dev/pts"
    mount -t tmpfs -o nosuid,nodev,mode=755 run "$system/run"
    mkdir -m 1777 "$system/run/lock"
    while IFS= read -r file; do
        [[ -f $file || -d $file ]] || continue
        if [[ -d $file ]]; then
            mkdir -p "$system$file"
        else
            mkdir -p "$(dirname "$system$file")"
            [[ -e $system$file ]] || : >"$system$file"
        fi
        mount -o bind,ro "$file" "$system$file"
    done <<<"$shown"
    # shellcheck disable=SC2016 # That shell replaces them.
    chroot "$system" sh -c 'cd "$0" && exec "$@"' "$place" "$@" || status=$?
    exit "$status"
}

run_inside() {
    local environment=(
        "HOME=$HOME" LANG=C.UTF-8 "TERM=${TERM:-dumb}"
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    )
    local setting
    while IFS= read -r -d '' setting; do
        [[ ! ${setting%%=*} =~ ^(PIP_.*|NOVA_SG_.*|RUN_DEADLINE|CI)$ &&
            ! ${setting%%=*} =~ ^([a-z]+_proxy|[A-Z]+_PROXY)$ ]] ||
            environment+=("$setting")
    done < <(env --null --unset=PIP_CACHE_DIR)
    mkdir -p "$folder$HOME"
    # Mounts that an interrupted run left behind.
    find "$folder/tmp" -mindepth 1 -xdev -delete
    say "Running in $folder: $*"
    # shellcheck disable=SC2016 # That shell replaces it.
    isolated env --ignore-environment "${environment[@]}" \
        bash -euc "$(declare -f enter)"'; enter "$@"' \
        bash "$folder" "$COPY" "$(pip_files)" "$@"
}

case ${1:-} in
-*)
    usage
    [[ $1 == -h || $1 == --help ]] || exit 2
    exit 0
    ;;
esac
if (($# < 2)); then
    usage >&2
    exit 2
fi
suite=$1
folder=$(realpath --canonicalize-missing "$2")
shift 2
(($#)) || set -- tools/run-tests.sh
[[ $folder/ != "$ROOT"/* ]] ||
    die "$folder is in this checkout; take a folder outside of it"

trap 'interrupt 130' INT
trap 'interrupt 143' TERM
trap 'interrupt 129' HUP
check_requirements
make_system
copy_settings
copy_checkout
run_inside "$@"
