#!/usr/bin/env bash
# Writes .env beside docker-compose.yml, for the whole stack on this machine, with secrets of its own.
# An .env that is there stays as it is.
set -euo pipefail
cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")"

if [[ -e .env ]]; then
  echo ".env is there and stays as it is; delete it to have a new one." >&2
  exit 1
fi

secret() { head -c 24 /dev/urandom | base64 | tr -- '+/' '-_'; }

declare -A value=(
  [OBJECT_STORE_URL]=http://minio:9000/ndif-results
  [OBJECT_STORE_PUBLIC_URL]=http://127.0.0.1:9000/ndif-results
  [INFLUXDB_ADDRESS]=http://influxdb:8086
  [LOKI_URL]=http://loki:3100
  [MINIO_ROOT_PASSWORD]=$(secret)
  [INFLUXDB_ADMIN_PASSWORD]=$(secret)
  [INFLUXDB_ADMIN_TOKEN]=$(secret)
  [GRAFANA_PASSWORD]=$(secret)
  [WEB_KEY]=$(secret)
)
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
  value[COMPOSE_FILE]=docker-compose.yml:gpu.yml
  value[SHM_SIZE]=16gb
  said="with this machine's GPUs"
else
  value[PIP_EXTRA_INDEX_URL]=https://download.pytorch.org/whl/cpu
  said="for a machine without GPU"
fi

umask 077
while IFS= read -r line; do
  name=${line%%=*}
  if [[ $line == [A-Z]*=* && -n ${value[$name]+set} ]]; then
    line="$name=${value[$name]}"
  fi
  printf '%s\n' "$line"
done <.env.example >.env.new
mv .env.new .env
echo "Wrote .env $said. Next: docker compose --profile all up --detach"
