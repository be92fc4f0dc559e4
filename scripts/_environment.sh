# Sourced by the other scripts: makes .venv and installs streamer into it, under constraints.txt.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"

say() { printf '%s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  fail "streamer needs Python 3.11, 3.12 or 3.13, and none of them is on the PATH"
}

# prepare EXTRAS: installs the project with the extras of pyproject.toml, unless that was done
# already and nothing it depends on has changed since.
prepare() {
  local extras=$1 stamp log free python
  stamp="$venv/.installed${extras:+-$extras}"
  if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] &&
    [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    return
  fi
  python=$(find_python) || exit 1
  free=$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1024)}')
  [ "$free" -ge 4096 ] ||
    fail "installing needs 4 GB of free disk in $root, and there are $free MB"
  if ! "$venv/bin/python" -c 'import sys' 2>/dev/null; then
    say "Making a virtual environment in $venv ($("$python" --version))"
    rm -rf "$venv"
    "$python" -m venv "$venv" >&2 ||
      fail "$python cannot make a virtual environment (on Debian: apt-get install python3-venv)"
  fi
  say "Installing streamer and its dependencies; PyTorch is large, so the first time takes minutes"
  log="$venv/install.log"
  # Constrained through the environment, so that the build's own requirements are pinned too.
  if ! (
    set -o pipefail
    PIP_CONSTRAINT="$root/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1 \
      "$venv/bin/python" -m pip install --editable "$root${extras:+[$extras]}" 2>&1 |
      tee "$log" |
      sed -u -n -e 's/^Collecting \([^ ]*\).*/  \1/p' -e 's/^Installing collected.*/  unpacking/p' >&2
  ); then
    grep -iE '^ *(error|fatal)' "$log" | tail -n 3 >&2
    fail "the installation did not finish (no network, or no disk?); its log is $log"
  fi
  fingerprint >"$stamp"
}

fingerprint() {
  { cat "$root/pyproject.toml" "$root/constraints.txt"; printf '%s\n' "$root"; } | sha256sum | cut -d' ' -f1
}
