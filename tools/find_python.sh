#!/bin/sh
# Prints the Python interpreter to build with, or says on standard error which Debian packages are missing.
# Candidates: $PYTHON when set, then python3 and the versioned names, first match wins.
set -u

is_recent='import sys; raise SystemExit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$is_recent" </dev/null >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done

packages=
if [ -z "$python" ]; then
    packages="python3 python3-venv python3-dev"
else
    "$python" -c 'import venv, ensurepip' </dev/null >/dev/null 2>&1 || packages="$packages python3-venv"
    "$python" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' </dev/null >/dev/null 2>&1 ||
        packages="$packages python3-dev"
fi
command -v "${CXX:-c++}" >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || packages="$packages g++"

if [ -n "$packages" ]; then
    [ -n "$python" ] || echo "quipu needs Python 3.11 or newer, and found none." >&2
    echo "Something is missing. On Debian or Ubuntu: apt-get install" $packages >&2
    exit 1
fi
echo "$python"
