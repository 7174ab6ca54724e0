#!/usr/bin/env bash
# Runs the image for real: it answers, sleeps, wakes, keeps within its memory and stops when told to.
#   docker/smoke.sh
# IMAGE, PORT and ENGINE are others than dormouse, 8000 and docker; RUN_ARGS are further arguments of each
# `run`, for instance: ENGINE=podman RUN_ARGS="--network host" docker/smoke.sh
set -euo pipefail

image=${IMAGE:-dormouse}
port=${PORT:-8000}
read -ra engine <<<"${ENGINE:-docker}"
read -ra run_args <<<"${RUN_ARGS:--p 127.0.0.1:$port:$port}"
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
url=http://127.0.0.1:$port
name=dormouse-smoke-$$
shared=$(mktemp -d)
trap 'in_engine rm -f "$name" >/dev/null 2>&1 || true; rm -rf "$shared"' EXIT

in_engine() { "${engine[@]}" "$@"; }
say() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; printf '\n'; }
inside() { show in_engine exec -e DORMOUSE_URL="$url" "$name" "$@"; }
ps_within() { inside dormouse ps; }

# expect PATTERN COMMAND...: what it prints has the pattern.
expect() {
    local pattern=$1 printed
    shift
    printed=$(show "$@" 2>&1) || { printf '%s\nFAILED: %s\n' "$printed" "$*"; exit 1; }
    printf '%s\n\n' "$printed"
    grep -qE -- "$pattern" <<<"$printed" || { printf 'FAILED: no %s in it\n' "$pattern"; exit 1; }
}

wait_for() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    printf 'FAILED: never true: %s\n' "$*"
    in_engine logs "$name"
    exit 1
}

# start MEMORY [ARGUMENT...]: as docker/compose.yaml does.
start() {
    local memory=$1
    shift
    show in_engine run --detach --name "$name" --memory "$memory" --read-only --tmpfs /tmp --cap-drop ALL \
        --security-opt no-new-privileges "${run_args[@]}" "$@" "$image" \
        serve --config /config/config.toml --host 0.0.0.0 --port "$port"
    wait_for curl -sf "$url/ready"
}

ask() {
    curl -sS "$url/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model": "'"$1"'", "temperature": 0,
        "max_tokens": 40, "stream": '"${2:-false}"', "messages": [{"role": "user", "content": "How does sleep work?"}]}'
}

post() { curl -sS -X POST "$url$1"; }
has_levels() { test "$(in_engine exec -e DORMOUSE_URL="$url" "$name" dormouse ps --json | grep -o '"level": *[12]' | sort | uniq -c | tr -s ' \n' ' ')" = "$1"; }
exit_code() { in_engine inspect --format '{{.State.ExitCode}} OOM-killed: {{.State.OOMKilled}}' "$name"; }
stop() {
    show in_engine stop --time 45 "$name"
    expect '^0 OOM-killed: false' exit_code
    in_engine rm "$name" >/dev/null
}

say "the demo, as a user without rights"
start 2g
expect 'uid=1000' inside id
expect '"content":".+"' ask demo-a
expect '"level":1' post '/sleep?level=1&model=demo-a'
ps_within
expect '"content":".+"' ask demo-a
expect '"level":2' post '/sleep?level=2&model=demo-a'
expect '"content":".+"' ask demo-a
ps_within

say "told to stop while it answers, it finishes first, within its grace time"
ask demo-b true >"$shared/answer" &
wait_for grep -q content "$shared/answer"
SECONDS=0
stop
printf 'stopped within %s s\n' "$SECONDS"
expect 'DONE' tail -n 2 "$shared/answer"

say "four models of 98 MiB, asleep when idle"
chmod 755 "$shared"
mkdir -m 777 "$shared/models"
for seed in 1 2 3 4; do
    in_engine run --rm "${run_args[@]}" -v "$shared/models:/models" -v "$repository/tests:/src/tests:ro" -e PYTHONPATH=/src \
        --entrypoint python "$image" -m tests.bench.random_checkpoint "/models/m$seed" --shape 60m --seed "$seed"
    printf '[models.m%s]\npath = "/models/m%s"\n' "$seed" "$seed"
done | grep -E '^(\[|path)' >"$shared/models.toml"
printf '[sleep]\nidle_timeout = "2s"\n' | cat - "$shared/models.toml" >"$shared/config.toml"
for limit in 2g 570m; do
    say "with $limit of memory"
    start "$limit" -v "$shared/config.toml:/config/config.toml:ro" -v "$shared/models:/models:ro"
    for seed in 1 2 3 4; do ask "m$seed" | grep -o '"usage":{[^}]*'; done
    sleep 4
    ps_within
    if [[ $limit = 2g ]]; then has_levels ' 4 "level": 1 '; else has_levels ' 4 "level": 2 ' || has_levels ' 2 "level": 1 2 "level": 2 '; fi
    stop
done
