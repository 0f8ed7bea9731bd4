#!/usr/bin/env bash
# A real schema registry with Confluent's REST API for integration tests: Apicurio Registry 3, its data in DIR.
#
#   schema-registry.sh up    DIR PORT   start, wait until ready, print the base URL of Confluent's API
#   schema-registry.sh down  DIR        SIGTERM, wait (SIGKILL after 10 s)
#   schema-registry.sh kill9 DIR        SIGKILL
#   schema-registry.sh get              fetch it from Maven Central, once, and print the folder
#
# Needs Java 17 and, once, mvn. A second 'up' in the same DIR has what the first one was told.
# Env: APICURIO_VERSION (3.0.9; 3.3 wants Java 21)  APICURIO_HOME  SR_XMX (384m)  SR_JAVA_OPTS  SR_READY_S (120)
set -euo pipefail
V=${APICURIO_VERSION:-3.0.9}; HOME_=${APICURIO_HOME:-${TIDEMILL_CACHE:-$HOME/.cache/tidemill-test}/apicurio-$V}
die() { echo "schema-registry.sh: $*" >&2; exit 1; }
get() {
  [ -e "$HOME_/.ok" ] && return; mkdir -p "$HOME_"
  mvn -q -B dependency:get -Dartifact=io.apicurio:apicurio-registry-app:$V:tar.gz:all -Dtransitive=false >&2
  local repo; repo=${MAVEN_REPO:-$HOME/.m2/repository}
  tar -xzf "$repo/io/apicurio/apicurio-registry-app/$V/apicurio-registry-app-$V-all.tar.gz" -C "$HOME_"
  touch "$HOME_/.ok"
}
pid_of() { local p; [ -s "$DIR/pid" ] || return 1; p=$(cat "$DIR/pid"); [ -r /proc/"$p"/cmdline ] && tr '\0' ' ' </proc/"$p"/cmdline 2>/dev/null | grep -qF -- "-Dtidemill.sr.dir=$DIR " && echo "$p"; }
cmd=${1:?up|down|kill9|get}; [ "$cmd" = get ] && { get; echo "$HOME_"; exit; }
DIR=${2:?DIR}; mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd)
case $cmd in
  up) port=${3:?PORT}; get; pid_of >/dev/null && { cat "$DIR/url"; exit; }
      main=$(find "$HOME_" -maxdepth 2 \( -name 'quarkus-run.jar' -o -name 'apicurio-registry-app-*-runner.jar' \) | head -1)
      # the archive is flat (all jars in one folder): the manifest of the runner jar names them
      url=http://127.0.0.1:$port/apis/ccompat/v7; echo "$url" > "$DIR/url"
      cd "$(dirname "$main")"
      ( # A registry that outlives its caller must not hold what the caller had open, a lock for example.
        for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || exec {fd}>&-; done
        export APICURIO_STORAGE_KIND=sql QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT=$port
        exec setsid nohup java -Xmx"${SR_XMX:-384m}" -XX:+UseSerialGC -Dtidemill.sr.dir="$DIR" \
          -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port" -Dapicurio.storage.kind=sql \
          -Dapicurio.datasource.url="jdbc:h2:file:$DIR/data;WRITE_DELAY=0" ${SR_JAVA_OPTS:-} \
          -jar "$main" </dev/null >"$DIR/log" 2>&1 ) &
      echo $! > "$DIR/pid"
      t0=$SECONDS
      until curl -fsS -o /dev/null "$url/subjects" 2>/dev/null; do
        kill -0 "$(cat "$DIR/pid")" 2>/dev/null || { tail -n 30 "$DIR/log" >&2; die "died"; }
        [ $((SECONDS-t0)) -lt "${SR_READY_S:-120}" ] || { tail -n 30 "$DIR/log" >&2; die "not ready"; }
        sleep 0.2
      done
      echo "$url" ;;
  down|kill9) if p=$(pid_of); then kill $([ "$cmd" = kill9 ] && echo -9 || echo -15) "$p"; for i in $(seq 100); do pid_of >/dev/null || break; sleep 0.1; done; pid_of >/dev/null && kill -9 "$p"; fi; rm -f "$DIR/pid" ;;
  *) die "unknown: $cmd" ;;
esac
