#!/bin/bash
# Healthy while the controller says that it can serve. Needs nothing but bash.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/2381
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
answer=$(cat <&3)
[[ $answer == "HTTP/1."?" 200 "* ]] || { echo "${answer##*$'\r\n\r\n'}"; exit 1; }
