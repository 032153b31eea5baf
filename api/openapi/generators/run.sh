#!/usr/bin/env bash
# Generates a client from the OpenAPI document with each of four generators, compiles it, and runs it against a Herald with the
# simulator of the providers: it sends a single and a bulk, and reads a refusal. The output is one line for each generator.
# Everything that is generated or installed goes into a temporary directory. It needs Go, npm and npx.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
herald=
cleanup() {
  if [ -n "$herald" ]; then kill "$herald" 2>/dev/null && wait "$herald" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

# step runs a command and shows its output only when it fails.
step() {
  if ! "$@" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    return 1
  fi
}

start_herald() {
  (cd "$here/../../.." && go build -o "$work/herald" ./cmd/herald)
  "$work/herald" openapi >"$work/openapi.json"
  HERALD_MASTER_KEY=$(head -c 32 /dev/urandom | base64)
  export HERALD_MASTER_KEY
  TMPDIR=$work "$work/herald" demo --listen 127.0.0.1:0 --leads 10 >"$work/demo" 2>&1 &
  herald=$!
  until grep -q 'keeps running' "$work/demo"; do
    kill -0 "$herald" 2>/dev/null || { cat "$work/demo" >&2; exit 1; }
    sleep 0.1
  done
  HERALD_URL=$(sed -n 's/^Herald demo on \(http:[^ ]*\): .*/\1/p' "$work/demo")
  HERALD_API_KEY=$(DATABASE_URL=sqlite://$(echo "$work"/herald-demo-*/herald.db) "$work/herald" keys create --name generated --scope send,read | head -1)
  export HERALD_URL HERALD_API_KEY
}

oapi-codegen() {
  cd "$work/go" && mkdir oapi-codegen/herald &&
    step go tool oapi-codegen -generate types,client -package herald -o oapi-codegen/herald/herald.go "$work/openapi.json" &&
    step go run ./oapi-codegen
}

ogen() {
  cd "$work/go" &&
    step go tool ogen -package herald -target ogen/herald "$work/openapi.json" &&
    step go run ./ogen
}

openapi-typescript() {
  cd "$work/typescript" &&
    step npx --no-install openapi-typescript "$work/openapi.json" --output openapi-typescript/schema.ts &&
    step npx --no-install tsc -p openapi-typescript &&
    step node out/openapi-typescript/main.js
}

hey-api() {
  cd "$work/typescript" &&
    step npx --no-install openapi-ts --input "$work/openapi.json" --output hey-api/client &&
    step npx --no-install tsc -p hey-api &&
    step node out/hey-api/main.js
}

start_herald
cp -r "$here/go" "$here/typescript" "$work"
step npm ci --prefix "$work/typescript" --no-audit --no-fund
failed=0
for generator in oapi-codegen ogen openapi-typescript hey-api; do
  if ("$generator"); then
    echo "$generator: ok"
  else
    echo "$generator: FAILED"
    failed=1
  fi
done
exit "$failed"
