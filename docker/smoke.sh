#!/usr/bin/env bash
# Runs the image for real: it answers, sleeps, wakes, keeps within its memory and stops when told to.
#   docker/smoke.sh
# IMAGE, PORT and ENGINE may be others than dormouse, 8000 and docker; RUN_ARGS are further arguments of each
# `run`. For instance: ENGINE=podman RUN_ARGS="--network host" docker/smoke.sh
set -euo pipefail

image=${IMAGE:-dormouse}
port=${PORT:-8000}
read -ra engine <<<"${ENGINE:-docker}"
read -ra run_args <<<"${RUN_ARGS:--p 127.0.0.1:$port:$port}"
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
url=http://127.0.0.1:$port
name=dormouse-smoke-$$
files=$(mktemp -d)
trap 'engine rm --force --volumes "$name" >/dev/null 2>&1 || true; rm -rf "$files"' EXIT

engine() { "${engine[@]}" "$@"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }

# expect PATTERN COMMAND...: what it prints, which is shown, has the pattern.
expect() {
    local pattern=$1 printed
    shift
    printf '$ %s\n' "$*"
    printed=$("$@" 2>&1) || fail "$printed"
    printf '%s\n\n' "$printed"
    grep -qE -- "$pattern" <<<"$printed" || fail "no $pattern"
}

wait_for() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    engine logs "$name"
    fail "never so: $*"
}

# start MEMORY [ARGUMENT...]: as docker/compose.yaml does.
start() {
    expect . engine run --detach --name "$name" --memory "$1" --read-only --tmpfs /tmp --cap-drop ALL \
        --security-opt no-new-privileges --env DORMOUSE_URL="$url" "${run_args[@]}" "${@:2}" "$image" \
        serve --config /config/config.toml --host 0.0.0.0 --port "$port"
    wait_for curl -sf "$url/ready"
}

inside() { engine exec "$name" "$@"; }
sleepers() { inside dormouse ps | grep -c "asleep ($1)" || true; }
post() { curl -sS -X POST "$url$1"; }

# ask MODEL [FIELDS [TOKENS]]
ask() {
    curl -sS "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "{\"model\": \"$1\", ${2:-}
        \"max_tokens\": ${3:-40}, \"messages\": [{\"role\": \"user\", \"content\": \"How does sleep work?\"}]}"
}

stop() {
    engine stop --time 45 "$name" >/dev/null
    expect '^exit code 0, killed for memory: false' engine inspect "$name" \
        --format 'exit code {{.State.ExitCode}}, killed for memory: {{.State.OOMKilled}}'
    engine rm --volumes "$name" >/dev/null
}

printf '== The demo, by a user without rights\n'
start 2g
expect 'uid=1000' inside id
expect '"content":".+"' ask demo-a
for level in 1 2; do
    expect "\"level\":$level" post "/sleep?level=$level&model=demo-a"
    expect "asleep .$level" inside dormouse ps
    expect '"content":".+"' ask demo-a
done

printf '== Told to stop while it answers, it answers first\n'
ask demo-b '"stream": true, "min_tokens": 400,' 400 >"$files/answer" &
wait_for grep -q '"content":"' "$files/answer"
began=$SECONDS
stop
printf 'Stopped after %s s\n' $((SECONDS - began))
expect '"finish_reason":"length"' tail -n 4 "$files/answer"

printf '== Nine models of 98 MiB of weights that sleep when idle, as lightly as memory allows\n'
models=(a b c d e f g h i)
mkdir -m 777 "$files/models"
chmod 755 "$files"
engine run --rm "${run_args[@]}" --volume "$files/models:/models" --volume "$repository/tests:/src/tests:ro" \
    --env PYTHONPATH=/src --entrypoint python "$image" \
    -m tests.bench.random_checkpoint /models/checkpoint --shape 60m
printf '[sleep]\nidle_timeout = "2s"\n' >"$files/config.toml"
for model in "${models[@]}"; do
    printf '[models.%s]\npath = "/models/checkpoint"\n' "$model" >>"$files/config.toml"
done
volumes=(--volume "$files/config.toml:/config/config.toml:ro" --volume "$files/models:/models:ro")

# memory LIMIT PATTERN: how many of them sleep at level 2.
memory() {
    start "$1" "${volumes[@]}"
    for model in "${models[@]}"; do
        expect '"content":".+"' ask "$model"
    done
    sleep 4
    expect asleep inside dormouse ps
    expect "$2" sleepers 2
    stop
}
memory 2g '^0$'
memory 1g '^[1-8]$'
printf '== All as it should be\n'
