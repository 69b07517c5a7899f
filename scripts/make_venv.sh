#!/bin/sh
# Makes the virtual environment $1 with the first suitable Python, or says plainly what is missing.
set -eu
venv=$1

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if [ -x "$venv/bin/python" ] && suits "$venv/bin/python"; then exit 0; fi

python=
for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
    if command -v "$name" >/dev/null && suits "$name"; then python=$name; break; fi
done
if [ -z "$python" ]; then
    echo "Penstock needs Python 3.11 or newer, and found none. Install one, or name it: make PYTHON=/path/to/python3 ..." >&2
    exit 1
fi

if command -v uv >/dev/null; then
    exec uv venv --quiet --seed --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv"
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    cat >&2 <<MESSAGE
$("$python" --version) cannot make virtual environments: its venv or ensurepip module is missing.
On Debian and Ubuntu: apt-get install python3-venv. Or put uv on PATH. Then run make again.
MESSAGE
    exit 1
fi
exec "$python" -m venv "$venv"
