#!/bin/sh
# Makes the virtual environment $1 with the first suitable Python, or says plainly what is missing.
#
# The distribution's own Python comes before the PATH's: it is built with profile-guided optimisation, and a Python
# built from source without it runs the gateway at two thirds of the speed (docs/performance.md). PYTHON=... overrides.
set -eu
venv=$1

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
makes_venvs() { command -v uv >/dev/null || "$1" -c 'import ensurepip, venv' 2>/dev/null; }

if [ -x "$venv/bin/python" ] && suits "$venv/bin/python"; then exit 0; fi

python=
without_venv=
for name in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11 python3.14 python; do
    command -v "$name" >/dev/null && suits "$name" || continue
    if makes_venvs "$name"; then python=$name; break; fi
    without_venv=$name
done

if [ -z "$python" ] && [ -n "$without_venv" ]; then
    cat >&2 <<MESSAGE
$("$without_venv" --version) cannot make virtual environments: its venv or ensurepip module is missing.
On Debian and Ubuntu: apt-get install python3-venv. Or put uv on PATH. Then run make again.
MESSAGE
    exit 1
fi
if [ -z "$python" ]; then
    echo "Penstock needs Python 3.11 or newer, and found none. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi

if command -v uv >/dev/null; then
    exec uv venv --quiet --seed --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv"
fi
exec "$python" -m venv "$venv"
