#!/usr/bin/env bash
# tests/helm/image.sh: what can be proven of the image without a container engine. A root is made as helm/Dockerfile's final
# stage has it (distroless base-nossl: four libraries of glibc, certificates, the user 65532; libgcc and the program) and
# mounted read only; in it, as that user, without capabilities, the service answers /livez and /readyz, and finds an
# authority that stands in the system's certificates alone. TIDEMILL names the program. Needs root, unshare, openssl, curl.
set -euo pipefail
cd "$(dirname "$0")/../.."
program=${TIDEMILL:-target/release/tidemill}
for needed in unshare openssl curl objcopy; do
  command -v "$needed" >/dev/null || { echo "skipped: no $needed, so the image's root is not tried" >&2; exit 0; }
done
if [ "$(id -u)" != 0 ] || ! unshare --mount true 2>/dev/null; then
  echo "skipped: mounts are not allowed here, so the image's root is not tried" >&2
  exit 0
fi
work=$(mktemp -d)
trap '{ kill -KILL $(jobs -p); wait; } 2>/dev/null; rm -rf "$work"' EXIT
fail() { echo "image: $*" >&2; exit 1; }
root=$work/root
mkdir -p "$root"/{etc/ssl/certs,etc/tidemill,usr/local/bin,var/lib/tidemill,models,proc,dev}
touch "$root/dev/null" "$root/dev/urandom"
chmod 755 "$work" "$root"

# 1. The libraries: those of glibc and libgcc, and glibc no newer than Debian 12's.
objcopy --compress-debug-sections=zlib -R .debug_loclists -R .debug_loc -R .debug_aranges "$program" "$root/usr/local/bin/tidemill"
ldd "$program" | grep -oE '/[^ ]+' | while read -r library; do
  case ${library##*/} in
  libc.so.6 | libm.so.6 | libgcc_s.so.1 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux-x86-64.so.2 | ld-linux-aarch64.so.1) ;;
  *) fail "needs $library, which the image does not have" ;;
  esac
  mkdir -p "$root${library%/*}"
  cp -L "$library" "$root$library"
done
newest=$(objdump -T "$program" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1)
[ "$(printf '%s\nGLIBC_2.36\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.36 ] || fail "needs $newest, and Debian 12 has 2.36"

# 2. The size, of an optimised build, which CI has: distroless base-nossl and libgcc unpacked are 17 MB at most (Debian's
# libc6 13.3, tzdata 2.7, ca-certificates 0.4, libgcc-s1 0.2, by their Installed-Size).
size=$(($(stat -c %s "$root/usr/local/bin/tidemill") / 1000000 + 17))
[ "$size" -lt 80 ] || [ "${CI:-}" != true ] || fail "would have $size MB, and 80 is the bound"

# 3. A configuration with an embedded log, the demo's model, and a place to write to, as the chart mounts them.
cp -r config/demo/models/breast-cancer/1 "$root/models/model"
chown -R 65532:65532 "$root/var/lib/tidemill"
port=$((20000 + RANDOM % 20000))
cat >"$root/etc/tidemill/tidemill.yaml" <<Y
log: sqlite:/var/lib/tidemill/log.db
kafka: {group: g}
input: {topics: [in]}
output: {topic: out}
model: {uri: /models/model}
http: {listen: "127.0.0.1:$port"}
state: {dir: /var/lib/tidemill/journal}
Y
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout "$work/tls.key" -out "$work/tls.csr" 2>/dev/null
openssl x509 -req -in "$work/tls.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 -out "$work/tls.pem" \
  -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
tls=$((port + 1))
openssl s_server -quiet -accept "127.0.0.1:$tls" -cert "$work/tls.pem" -key "$work/tls.key" </dev/null >/dev/null 2>&1 &
cat >"$root/etc/tidemill/tls.yaml" <<Y
kafka: {group: g, common: {bootstrap.servers: "127.0.0.1:$tls", security.protocol: SSL}}
input: {topics: [in]}
output: {topic: out}
model: {uri: /models/model}
state: {dir: /var/lib/tidemill/other}
Y

# inside COMMAND...: in the root, which cannot be written but for the service's own place, as 65532, never to get more rights.
inside() {
  # shellcheck disable=SC2016
  exec env -i PATH="$PATH" POD_NAME=image-0 unshare --mount sh -c '
    mount --bind "$0" "$0" && mount --bind "$0/var/lib/tidemill" "$0/var/lib/tidemill" && mount -t proc proc "$0/proc" &&
    mount --bind /dev/null "$0/dev/null" && mount --bind /dev/urandom "$0/dev/urandom" && mount -o remount,ro,bind "$0" && exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$0" "$@"' "$root" "$@"
}
tidemill=/usr/local/bin/tidemill
(inside $tidemill --version) >"$work/version" || fail "does not start: $(cat "$work/version")"
(inside $tidemill check --offline --config /etc/tidemill/tidemill.yaml) >"$work/check" || fail "check --offline: $(cat "$work/check")"

# 4. The system's authorities are found, and what they do not know is refused.
for known in no yes; do
  if [ $known = yes ]; then cp "$work/ca.pem" "$root/etc/ssl/certs/ca-certificates.crt"; else
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=another -keyout /dev/null -out "$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null
  fi
  (inside $tidemill check --config /etc/tidemill/tls.yaml) >"$work/tls-$known" 2>&1 || true
done
grep -q "certificate" "$work/tls-no" || fail "an authority that nobody knows is not refused: $(cat "$work/tls-no")"
! grep -q "certificate" "$work/tls-yes" || fail "the system's authorities are not found: $(cat "$work/tls-yes")"

# 5. It runs, and is ready.
(inside $tidemill run --config /etc/tidemill/tidemill.yaml) >"$work/log" 2>&1 &
end=$((SECONDS + 60))
until curl -fs "http://127.0.0.1:$port/readyz" >/dev/null; do
  [ $SECONDS -lt $end ] || fail "is not ready after a minute: $(cat "$work/log")"
  sleep 0.1
done
curl -fs "http://127.0.0.1:$port/livez" >/dev/null || fail "/livez does not answer"
owner=$(stat -c %u "$root/var/lib/tidemill/log.db")
[ "$owner" = 65532 ] || fail "runs as user $owner"
echo "image: about $size MB with distroless base-nossl, up to $newest, no shell; runs read only as 65532; finds the system's authorities"
