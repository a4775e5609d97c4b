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
# What the scripts of this folder share. They source it; it does nothing by
# itself but say where the checkout is: ROOT.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Progress goes to stderr: the output of a script is its result.
say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Install Debian packages where this user may, otherwise say how and end.
apt_install() {
    local as_root=() command="apt-get install --yes --no-install-recommends $*"
    command -v apt-get >/dev/null ||
        die "this system has no apt-get; install what corresponds to: $*"
    if ((EUID != 0)); then
        if ! sudo -n true 2>/dev/null; then
            die "packages are missing; run this as root and start again:" \
                "apt-get update && $command"
        fi
        as_root=(sudo -n)
    fi
    say "Installing Debian packages: $*"
    # The script comes on a descriptor of its own: apt-get may read stdin.
    "${as_root[@]}" sh -c "$(apt_script)" sh "$@" </dev/null >&2 ||
        die "the packages could not be installed; as root, try: $command"
}

# The part of apt_install that runs as root.
apt_script() {
    cat <<'EOF'
set -eu
export DEBIAN_FRONTEND=noninteractive
# apt checks signatures as another user, who must be able to write there.
unset TMPDIR
# Debian starts a daemon when it installs one. The tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
# Where the lists cannot be fetched, the old ones may still do.
apt-get -q update || true
apt-get -q -o DPkg::Lock::Timeout=300 install \
    --yes --no-install-recommends "$@"
EOF
}

# Install what bindep.txt names and this machine has not.
install_packages() {
    local missing=() package
    if ! command -v dpkg-query >/dev/null; then
        say 'Not a Debian system: make sure of what bindep.txt names yourself'
        return
    fi
    while read -r package; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" \
            2>/dev/null | grep -qx installed || missing+=("$package")
    done < <(sed -n 's/^\([a-z0-9][^ ]*\) *\[.*platform:dpkg.*/\1/p' "$ROOT/bindep.txt")
    if ((${#missing[@]})); then
        apt_install "${missing[@]}"
    fi
}

# Print the path of a Python >= 3.11, if possible one that can make virtual
# environments. $PYTHON, where set, is the only candidate.
find_python() {
    local check candidate candidates
    if [[ -n ${PYTHON:-} ]]; then
        candidates=("$PYTHON")
    else
        candidates=(python3 python3.11 python3.12 python3.13 /usr/bin/python3)
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

# Make sure that a Python can make virtual environments: Debian keeps
# ensurepip in a package of its own.
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

# pbr asks git for the version and the files of the package, and git refuses
# a checkout of another user unless told to trust it.
trust_checkout() {
    if [[ -e $ROOT/.git ]] && ! git -C "$ROOT" rev-parse 2>/dev/null; then
        export GIT_CONFIG_COUNT=1
        export GIT_CONFIG_KEY_0=safe.directory
        export GIT_CONFIG_VALUE_0=$ROOT
    fi
}

# make_environment FOLDER PYTHON PIP_ARGUMENT...
#
# Make a virtual environment with what the pip arguments say, unless it is
# there and nothing that it was made from has changed.
make_environment() {
    local folder=$1 python=$2 stamp
    shift 2
    stamp=$(
        {
            printf '%s\n' "$folder" "$@"
            "$python" -c 'import sys; print(sys.executable, sys.version)'
            cat "$ROOT"/{pyproject.toml,setup.cfg,*requirements.txt}
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
    printf '%s\n' "$stamp" >"$folder/stamp"
}
