#!/usr/bin/env bash
# Everything a fresh Debian or Ubuntu machine needs: system packages, virtual environment,
# pinned Python packages. Called by `make setup`; does nothing that is already done.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.setup-stamp

find_python() {
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "setup: no Python 3.11 or newer found; install one and pass it as PYTHON=..." >&2
    exit 1
}

install_system_packages() {
    command -v dpkg-query >/dev/null || return 0
    local wanted missing=()
    wanted="xvfb xauth libegl1 libgl1 libopengl0 libgl1-mesa-dri libglib2.0-0 libdbus-1-3
        libfontconfig1 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0
        libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0
        libxcb-xkb1 fonts-dejavu-core"
    "$1" -c 'import ensurepip' 2>/dev/null \
        || wanted+=" $("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    for package in $wanted; do
        # dpkg-query fails where either name is unknown, so its own status says nothing
        case "$(dpkg-query -W -f='${Status}\n' "$package" "${package}t64" 2>/dev/null || true)" in
            *"install ok installed"*) ;;
            *) missing+=("$package") ;;
        esac
    done
    ((${#missing[@]})) || return 0
    local sudo=()
    if [ "$(id -u)" != 0 ]; then
        if sudo -n true 2>/dev/null; then
            sudo=(sudo -n)
        else
            echo "setup: system packages are missing and may not be installed from here. Run:" >&2
            echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
    fi
    echo "setup: installing system packages: ${missing[*]}"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The folder is in it because the programs of a virtual environment name their own place.
wanted_stamp=$( (pwd -P && cat pyproject.toml constraints.txt tools/setup.sh) | sha256sum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted_stamp" ] && [ -x $venv/bin/txm-bgcorr ]; then
    exit 0
fi
python=$(find_python)
install_system_packages "$python"
$venv/bin/python -m pip --version >/dev/null 2>&1 \
    || $venv/bin/python -m ensurepip >/dev/null 2>&1 \
    || "$python" -m venv --clear $venv
echo "setup: installing Python packages into $venv (a few minutes the first time)"
# torch is named in the same command: a later install of monai alone would replace it.
$venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt \
    torch==2.13.0 -e '.[all,test,docs]'
echo "$wanted_stamp" >"$stamp"
