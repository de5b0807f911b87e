#!/usr/bin/env bash
# A local Ray looks up hosts of cloud providers and writes a token into the user's home, with its usage reports off.
#
# Seen with: ray 2.60.0 from PyPI on 2026-11-28, Python 3.11, Linux x86-64.
# Behaviour: ray.init() starts the server of the dashboard also with include_dashboard=False. Its module UsageStatsHead
#   then asks 169.254.169.254 and metadata.google.internal for the cloud that it runs in, before it looks whether
#   RAY_USAGE_STATS_ENABLED is 0. A new local Ray also writes ~/.ray/auth_token, unless RAY_AUTH_TOKEN is set.
# Output seen:
#   ray 2.60.0
#   looked up: metadata.google.internal
#   in the home: .ray/auth_token
# Fails (exit 1) when that changes; nas/engine/executor.py keeps the server from starting and sets a token.
#
# Usage: findings/ray-looks-up-hosts.sh [VERSION OF RAY]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray==${1:-2.60.0}"
mkdir "$folder/home" "$folder/hook"
cat >"$folder/hook/sitecustomize.py" <<'PYTHON'
import ipaddress
import os
import socket
import sys


def note(event, arguments):
    if event == "socket.getaddrinfo":
        host = str(arguments[0] or "")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if host not in ("", "localhost", socket.gethostname()):
                with open(os.environ["NOTES"], "a") as file:
                    file.write(f"{host}\n")


sys.addaudithook(note)
PYTHON
touch "$folder/notes"
env -u RAY_AUTH_TOKEN -u RAY_AUTH_TOKEN_PATH HOME="$folder/home" NOTES="$folder/notes" PYTHONPATH="$folder/hook" \
    RAY_USAGE_STATS_ENABLED=0 "$folder/venv/bin/python" - <<'PYTHON'
import time

import ray

ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
time.sleep(8)
PYTHON
"$folder/venv/bin/python" -m pip list 2>/dev/null | awk '$1 == "ray" { print $1, $2 }'
hosts=$(sort -u "$folder/notes")
files=$(cd "$folder/home" && find . -type f | sed 's|^\./||')
printf 'looked up: %s\nin the home: %s\n' "${hosts:-nothing}" "${files:-nothing}"
[[ $hosts == *metadata.google.internal* && $files == *auth_token* ]] || { echo "this has changed"; exit 1; }
