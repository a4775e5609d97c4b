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

# shellcheck shell=bash
# Functions for the scripts of this folder, which source it. By itself it only
# sets ROOT, the folder of the checkout.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Progress goes to stderr, as the output of a script is its result.
say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The name of this system, such as: Debian GNU/Linux 13 (trixie).
system_name() {
    sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\).*/\1/p' /etc/os-release
}

# Install Debian packages; if this user may not, print how to do it and end.
apt_install() {
    local as_root=() command="apt-get install --yes --no-install-recommends $*"
    command -v apt-get >/dev/null ||
        die "this system has no apt-get; install what corresponds to: $*"
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            need_available "$@"
            die "packages are missing; run this as root and start again:" \
                "apt-get update && $command"
        fi
        as_root=(sudo -n)
    fi
    # apt checks signatures as another user, which must be able to write to
    # its temporary folder. If lists cannot be fetched, the old ones may do.
    "${as_root[@]}" env --unset=TMPDIR apt-get -q update </dev/null >&2 ||
        say 'apt-get update failed, see above; going on with the old lists'
    need_available "$@"
    say "Installing Debian packages: $*"
    # Not by a script on stdin, which apt-get may read.
    "${as_root[@]}" sh -c "$(apt_script)" sh "$@" </dev/null >&2 ||
        die "the packages could not be installed; as root, try: $command"
}

# need_available PACKAGE...: print every package that apt cannot install, and
# end if there is one.
need_available() {
    local package unavailable=0
    # Before the first "apt-get update" apt knows no package.
    is_available dpkg || return 0
    for package in "$@"; do
        if ! is_available "$package"; then
            printf 'Debian package %s is not available on this system (%s)\n' \
                "$package" "$(system_name)" >&2
            unavailable=1
        fi
    done
    ((!unavailable)) ||
        die "no source of apt has the packages above. If a source is" \
            "missing (Debian's component main has all of them), add it," \
            "see sources.list(5), run \"apt-get update\" as root, and start" \
            "again. If this release has another name for a package, write" \
            "it into bindep.txt."
}

is_available() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null |
        grep '^  Candidate: ' | grep -qvF '(none)'
}

# The part of apt_install that runs as root.
apt_script() {
    cat <<'EOF'
set -eu
export DEBIAN_FRONTEND=noninteractive
# It is the calling user's, and may not be root's.
unset TMPDIR
# Debian starts a daemon when it installs it. The tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get -q -o DPkg::Lock::Timeout=300 install \
    --yes --no-install-recommends "$@"
EOF
}

# Install the packages of bindep.txt that this machine does not have.
install_packages() {
    local unmet packages
    if ! command -v dpkg-query >/dev/null; then
        say 'Not a Debian system: make sure of what bindep.txt names yourself'
        return
    fi
    unmet=$(unmet_packages)
    [[ -n $unmet ]] || return 0
    mapfile -t packages < <(cut -d ' ' -f 1 <<<"$unmet")
    apt_install "${packages[@]}"
    unmet=$(unmet_packages)
    [[ -z $unmet ]] ||
        die "this system ($(system_name)) has other versions of these" \
            "packages than bindep.txt needs: ${unmet//$'\n'/, }"
}

# Print the packages of bindep.txt that are not installed, or not in the right
# version: one a line, with the right versions after a space.
unmet_packages() {
    local wanted package versions version
    wanted=$(wanted_packages)
    while read -r package versions; do
        version=$(installed_version "$package")
        if [[ -z $version ]] || ! version_suits "$version" "$versions"; then
            printf '%s\n' "$package${versions:+ $versions}"
        fi
    done <<<"$wanted"
}

# Print the version of a package; nothing if it is not installed.
installed_version() {
    dpkg-query --show --showformat='${db:Status-Status} ${Version}\n' "$1" \
        2>/dev/null | sed -n 's/^installed //p' || true
}

# version_suits VERSION CONDITION,...: a condition is as in ">=3.8".
version_suits() {
    local version=$1 condition operator conditions
    IFS=, read -ra conditions <<<"$2"
    for condition in "${conditions[@]}"; do
        [[ $condition =~ ^([\<\>=!]=|[\<\>])([0-9].*)$ ]] ||
            die "bindep.txt: \"$condition\" is no condition on a version"
        operator=${BASH_REMATCH[1]}
        case $operator in
        '<') operator='<<' ;;
        '>') operator='>>' ;;
        '==') operator='=' ;;
        '!=') operator=ne ;;
        esac
        dpkg --compare-versions "$version" "$operator" "${BASH_REMATCH[2]}" ||
            return
    done
}

# Print the packages of bindep.txt for this system, including those for tests,
# in lines like those of unmet_packages.
wanted_packages() {
    local line package selectors versions id release codename
    # In a shell of its own, as the file sets many variables.
    read -r id release codename < <(
        # shellcheck source=/dev/null
        . /etc/os-release
        printf '%s %s %s\n' "${ID:-}" "${VERSION_ID:--}" \
            "${VERSION_CODENAME:--}"
    )
    while read -r line; do
        line=${line%%#*}
        [[ $line =~ ^([a-z0-9][^ ]*)\ *(\[(.*)\])?\ *([^ ]*) ]] || continue
        package=${BASH_REMATCH[1]}
        selectors=${BASH_REMATCH[3]}
        versions=${BASH_REMATCH[4]}
        # shellcheck disable=SC2086 # Each word is a selector.
        if is_selected "$id" "$release" "$codename" $selectors; then
            printf '%s\n' "$package${versions:+ $versions}"
        fi
    done <"$ROOT/bindep.txt"
}

# is_selected ID RELEASE CODENAME SELECTOR...: whether bindep would use a line
# with these selectors on this Debian. Only selectors of platforms decide: one
# of them must be this system, and none with a "!" may be it.
is_selected() {
    local here=" dpkg $1 $1-$2 $1-$3 " selector positive=0 found=0
    shift 3
    for selector in "$@"; do
        case $selector in
        platform:*)
            positive=1
            [[ $here != *" ${selector#platform:} "* ]] || found=1
            ;;
        '!platform:'*)
            [[ $here != *" ${selector#!platform:} "* ]] || return 1
            ;;
        esac
    done
    ((found || !positive))
}

# Print the path of a Python >= 3.11, if possible one that can make virtual
# environments. If $PYTHON is set, it is the only candidate.
find_python() {
    local check candidate candidates
    if [[ -n ${PYTHON:-} ]]; then
        candidates=("$PYTHON")
    else
        candidates=(python3 python3.{11..14} /usr/bin/python3)
    fi
    for check in 'import ensurepip, sqlite3, ssl, venv' ''; do
        for candidate in "${candidates[@]}"; do
            "$candidate" -c "
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
$check
print(sys.executable)" 2>/dev/null && return
        done
    done
    if [[ -n ${PYTHON:-} ]]; then
        die "PYTHON is $PYTHON, which is not Python 3.11 or newer"
    fi
    die 'no Python 3.11 or newer found; on Debian, as root:' \
        'apt-get install python3 python3-venv'
}

# Make sure that a Python can make virtual environments. Debian has ensurepip
# in a package of its own.
ensure_venv_module() {
    local python=$1 version
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [[ $python != /usr/bin/* && $python != /bin/* ]]; then
        die "$python has no ensurepip; set PYTHON to one that has"
    fi
    if [[ $(readlink -f /usr/bin/python3) == */python"$version" ]]; then
        apt_install python3-venv
    else
        apt_install "python$version-venv"
    fi
    "$python" -c 'import ensurepip, venv' ||
        die "$python still cannot make virtual environments"
}

# pbr asks git for the version and the files of the package. git refuses a
# checkout of another user unless it is told to trust it.
trust_checkout() {
    [[ -e $ROOT/.git ]] || return 0
    command -v git >/dev/null || apt_install git
    if ! git -C "$ROOT" rev-parse 2>/dev/null; then
        export GIT_CONFIG_COUNT=1
        export GIT_CONFIG_KEY_0=safe.directory
        export GIT_CONFIG_VALUE_0=$ROOT
    fi
}

# make_environment FOLDER PYTHON PIP_ARGUMENT...
#
# Make a virtual environment with pip's arguments, unless it exists and the
# files that it was made from have not changed.
make_environment() {
    local folder=$1 python=$2 stamp argument
    shift 2
    stamp=$(
        {
            printf '%s\n' "$folder" "$@"
            "$python" -c 'import sys; print(sys.executable, sys.version)'
            cat "$ROOT"/{pyproject.toml,setup.cfg,*requirements.txt}
            # Such as constraints.
            for argument in "$@"; do
                [[ ! -f $argument ]] || cat "$argument"
            done
        } | sha256sum
    )
    if [[ -x $folder/bin/python && -e $folder/stamp &&
        $(<"$folder/stamp") == "$stamp" ]]; then
        return
    fi
    say "Making the environment ${folder#"$ROOT"/}"
    ensure_venv_module "$python"
    trust_checkout
    "$python" -m venv --clear "$folder" >&2
    (cd "$ROOT" && "$folder/bin/python" -m pip install --quiet "$@") >&2
    # Left by the build. In this folder Python would find its entry points
    # before those of the environment, also after they have changed.
    rm -rf "$ROOT/nova_sg.egg-info"
    printf '%s\n' "$stamp" >"$folder/stamp"
}

# prepare_tests: go to the checkout, and make the environment of the tests.
prepare_tests() {
    local python
    cd "$ROOT" || die "cannot go to $ROOT"
    install_packages
    python=$(find_python)
    make_environment "$ROOT/.venv-test" "$python" \
        --requirement test-requirements.txt --editable .
}
