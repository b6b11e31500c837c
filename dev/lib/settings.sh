# Sourced by dev/demo and dev/bench.
#
# Owns: where an archive lies for STORE=file and STORE=minio, and the settings files of a worker that writes it.
# Does not own: which data there is, how the worker is run.
# shellcheck shell=bash

# open_store DIR|BUCKET: sets SINK (lines of the connector's `sink`) and ARCHIVE (what dev/verify-archive takes).
# For minio it expects SLUICE_TEST_MINIO* in the environment and makes the bucket.
open_store() {
    case $STORE in
    file)
        ARCHIVE=$1
        SINK="  url: file://$ARCHIVE"
        ;;
    minio)
        ARCHIVE=s3://$1/archive
        python3 -B "$REPO_DIR/dev/lib/s3.py" mb "s3://$1"
        (umask 077 && printf '%s' "$SLUICE_TEST_MINIO_KEY" >"$RUN_DIR/minio.key" &&
            printf '%s' "$SLUICE_TEST_MINIO_SECRET" >"$RUN_DIR/minio.secret")
        SINK="  url: $ARCHIVE
  endpoint: $SLUICE_TEST_MINIO
  region: us-east-1
  flavor: minio
  credentials: { from: static, key_file: $RUN_DIR/minio.key, secret_file: $RUN_DIR/minio.secret }"
        ;;
    *) die "STORE=$STORE: file or minio" ;;
    esac
}

# write_settings DIR TOPIC [LINES]: DIR/worker.yaml and DIR/connectors/app-logs.yaml, with more lines for the connector.
write_settings() {
    local dir=$1 topic=$2 more=${3:-}
    mkdir -p "$dir/connectors"
    cat >"$dir/worker.yaml" <<YAML
kafka:
  bootstrap_servers: [${SLUICE_TEST_KAFKA//,/, }]
spool:
  dir: $dir/spool
http:
  listen: "127.0.0.1:$(free_ports 1)"
YAML
    cat >"$dir/connectors/app-logs.yaml" <<YAML
topics: [$topic]
app_id: { from: json, pointer: /app_id }
${more:+$more
}sink:
$SINK
YAML
}
