#!/usr/bin/env bash
# Build the container image without a container engine, run it as strictly as an operator would, and send it a photo.
# `make image-check` runs this, as root on Debian or Ubuntu. Settings, all optional:
#
#   WEIGHTS=FILE            weights to build in, instead of the packaged fallback
#   PHOTO=FILE EXPECT=WORD  photo to send, and a word of the label that must come first
#   TORCH=1                 prepare the model in the build, with torch, instead of by this folder's .venv
#   SUITE=bookworm MIRROR=  Debian release of the base image, and where to get it
#   IMAGE_BUILD_OPTIONS=    more options for `buildah build`, such as --volume or --build-arg
set -Eeuo pipefail
trap 'echo "image-check: line $LINENO failed: $BASH_COMMAND" >&2' ERR
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin suite=${SUITE:-bookworm} max_megabytes=450 build_arguments=()
container=topthree-check-$$
image=localhost/$container

say() { echo "image-check: $*"; }
fail() { say "$*" >&2; exit 1; }

need_tools() {
  local missing=() tool
  for tool in buildah debootstrap runc jq curl; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] && return
  { apt-get update && apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"; } \
    >"$work/apt.log" 2>&1 || fail "the Debian packages ${missing[*]} are missing and could not be installed."
}

clean_up() { runc delete --force "$container" 2>/dev/null || true; rm -rf --one-file-system "$work"; }
build_with() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }

make_base() {
  say "making a Debian $suite base image"
  debootstrap --variant=minbase "$suite" "$work/base" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" 2>&1 \
    || { tail -5 "$work/debootstrap.log"; fail "debootstrap could not make the base image."; }
  # What Debian's own slim images leave out.
  rm -rf "$work"/base/var/cache/apt/* "$work"/base/var/lib/apt/lists/* "$work"/base/usr/share/{doc,info,locale,man}/*
  local scratch; scratch=$(build_with from scratch)
  build_with add --quiet "$scratch" "$work/base" / >/dev/null
  build_with commit --quiet --rm "$scratch" localhost/base >/dev/null
  rm -rf "$work/base"
}

# Fill the build context: the working tree, and what goes into its weights/.
make_context() {
  mkdir -p "$work/context/weights"
  tar --create --exclude=./.git --exclude=./.venv --exclude='./.*_cache' --exclude=./weights . \
    | tar --extract --directory "$work/context"
  local cache=$work/context/weights/prepared
  if [ -n "${WEIGHTS:-}" ]; then
    cp "$WEIGHTS" "$work/context/weights/"
    build_arguments+=(--build-arg "WEIGHTS=weights/$(basename "$WEIGHTS")")
  else
    mkdir -p "$cache"
    printf "The image was built to serve it." >"$cache/fallback-in-use"
    build_arguments+=(--build-arg FALLBACK=efficientnet_lite0)
  fi
  [ -n "${TORCH:-}" ] && return
  local version; version=$("$bin/python" -c 'import importlib.metadata as m; print(m.version("openvino"))')
  grep -q "^openvino==$version\b" requirements-serve.txt \
    || fail ".venv has OpenVINO $version, and requirements-serve.txt another; run 'make lock', or use TORCH=1."
  say "preparing the model"
  TOPTHREE_CACHE=$cache TOPTHREE_WEIGHTS=${WEIGHTS:-} "$bin/topthree" prepare
  build_arguments+=(--build-arg PREPARED=weights/prepared)
}

# Let pip reach its index from the build as it does from here: the same configuration, the same certificates.
share_pip_configuration() {
  local certificates settings='index-url|extra-index-url|trusted-host|proxy|timeout|find-links'
  "$bin/pip" config list | sed -nE "1i [global]
    s/^(global|:env:)\.($settings)='(.*)'$/\2 = \3/p; s/^(global|:env:)\.cert='.*'$/cert = \/etc\/pip-cert.pem/p" \
    | awk '!seen[$1]++' >"$work/pip.conf"
  certificates=$("$bin/pip" config list | sed -nE "s/^(global|:env:)\.cert='(.*)'$/\2/p" | head -1)
  build_arguments+=(--volume "$work/pip.conf:/etc/pip.conf:ro")
  [ -z "$certificates" ] || build_arguments+=(--volume "$certificates:/etc/pip-cert.pem:ro")
}

build_image() {
  say "building the image"
  # shellcheck disable=SC2086 # options are words
  build_with build --isolation chroot --format docker --build-arg BASE=localhost/base "${build_arguments[@]}" \
    ${IMAGE_BUILD_OPTIONS:-} --tag "$image" "$work/context" >"$work/build.log" 2>&1 \
    || { tail -30 "$work/build.log"; fail "the image could not be built."; }
  root=$(build_with mount "$(build_with from "$image")")
}

check_contents() {
  local unwanted megabytes
  unwanted=$(find "$root" -xdev \( -path '*-packages/torch*' -o -path '*-packages/efficientnet*' \
    -o -path '*-packages/pip' -o -path '*/bin/*gcc*' -o -path '*/bin/cc' -o -path '*/bin/make' -o -path '*/.cache/*' \
    -o -name 'libx265*' -size +64k -o -name '*.whl' -o -name '*_gpu_plugin*' -o -name '*_npu_plugin*' \) -print -prune)
  [ -z "$unwanted" ] || fail "the image holds what it should not:"$'\n'"$unwanted"
  megabytes=$(du --summarize --one-file-system --block-size=1000000 "$root" | cut -f1)
  say "$megabytes MB unpacked, of which $(du -sx --block-size=1000000 "$root/opt/topthree" | cut -f1) MB are ours"
  [ "$megabytes" -le "$max_megabytes" ] || fail "that is more than $max_megabytes MB."
}

# Run the image as its configuration says: read-only root, tmpfs on /tmp, no capability, no network but loopback.
start_container() {
  mkdir -p "$work/bundle"
  build_with inspect --type image "$image" | jq .Docker.config >"$work/image.json"
  runc spec --bundle "$work"
  jq --slurpfile images "$work/image.json" --arg root "$root" --from-file scripts/image_check.jq \
    "$work/config.json" >"$work/bundle/config.json"
  runc run --detach --bundle "$work/bundle" "$container" </dev/null >"$work/serve.log" 2>&1
  process=$(runc state "$container" | jq .pid)
}

# The memory of all its processes in MB, each shared page counted once.
memory() {
  runc ps --format json "$container" | jq -r '.[] | "/proc/\(.)/smaps_rollup"' | xargs cat \
    | awk '/^Pss:/ {sum += $2} END {printf "%d", sum * 1024 / 1e6}'
}

inside() { nsenter --target "$process" --net "$@"; }

# List what the image is made of, from what lies in it, and see that the list names what must be there and nothing else.
write_sbom() {
  mkdir -p build
  "$bin/python" scripts/sbom.py "$root" >"$work/sbom.json" || fail "the bill of materials could not be made."
  local listed name; listed=$(jq -r '.components[].name' "$work/sbom.json")
  for name in topthree openvino gunicorn libc6 "$(jq -r .name "$root"/opt/topthree/cache/prepared/*/manifest.json)"; do
    grep -qix "$name" <<<"$listed" || fail "the bill of materials does not name $name."
  done
  ! grep -qiE '^(torch|pip|gcc.*-[0-9]+|g\+\+)$' <<<"$listed" || fail "the bill of materials names what should not be there."
  cp "$work/sbom.json" build/topthree.cdx.json
  say "build/topthree.cdx.json lists its $(wc -l <<<"$listed") components"
}

status_of() { inside curl --silent --output /dev/null --write-out '%{http_code}' -F "file=@$1" http://127.0.0.1:8000/api/v1/predict; }

# Decoders are the processes below the one that forks them, which is the first with its command line: they keep that.
decoders() { pgrep --parent "$(pgrep --oldest --full 'app\.processes\.forkserver' --nslist pid --ns "$process")"; }

# Photos are decoded in processes of their own: also here, where nothing may be written and no right is left.
check_decoders() {
  local file status
  grep -q 'Sandbox of the processes that decode photos: no files, sockets or processes' "$work/serve.log" \
    || fail "the log does not say that the sandbox is in force."
  for file in /dev/shm/full /tmp/full; do
    runc exec "$container" dd if=/dev/zero of=$file bs=1M status=none 2>>"$work/dd.log" && fail "$file has no end."
  done
  mkdir "$work/bombs"
  (cd scripts && "$bin/python" -c 'import pathlib, sys; from bomb_photos import bombs
# curl takes a name with a comma for two.
for name, data in bombs().items():
    pathlib.Path(sys.argv[1], name.translate({ord(c): " " for c in "/,"})).write_bytes(data)' "$work/bombs")
  for file in "$work"/bombs/*; do
    status=$(status_of "$file")
    [[ $status =~ ^(200|413|415|422)$ ]] || fail "$(basename "$file"): $status"
  done
  decoders | xargs kill -KILL
  status=$(status_of "$photo")
  [ "$status" = 200 ] || fail "a photo after all decoders were killed: $status"
  say "$(find "$work/bombs" -type f | wc -l) costly files answered, a full /dev/shm and /tmp, all decoders killed: photos go on"
}

check_service() {
  local started answer label
  started=$(date +%s%3N)
  start_container
  until inside curl --silent --fail --output /dev/null http://127.0.0.1:8000/readyz; do
    [ $(($(date +%s%3N) - started)) -lt 60000 ] || { cat "$work/serve.log"; fail "it was not ready after 60 s."; }
    sleep 0.05
  done
  say "ready after $(($(date +%s%3N) - started)) ms, as user $(ps -o uid= -p "$process" | tr -d ' ')"
  mapfile -t probe < <(jq -r '.Healthcheck.Test[1:][]' "$work/image.json")
  runc exec "$container" "${probe[@]}" || fail "the health check fails."
  answer=$(inside curl --silent --fail-with-body -F "file=@$photo" http://127.0.0.1:8000/api/v1/predict) || fail "$answer"
  label=$(jq -r '.predictions[0] | "\(.label) \(.confidence)"' <<<"$answer")
  say "$(basename "$photo"): $label, by $(jq -r '.model | "\(.name), \(.engine)"' <<<"$answer"), in $(memory) MB of memory"
  [[ $label == *${EXPECT:-}* ]] || fail "'$EXPECT' was to come first."
  answer=$(inside curl --silent --fail-with-body -F file=@tests/data/drawn.heic http://127.0.0.1:8000/api/v1/predict) \
    || fail "HEIC: $answer"
  check_decoders
  inside curl --silent --fail --output /dev/null http://127.0.0.1:8000/ || fail "the page does not answer."
  runc kill "$container" "$(jq -r .StopSignal "$work/image.json")"
  timeout 20 tail --pid="$process" --follow /dev/null || { cat "$work/serve.log"; fail "it does not stop."; }
}

[ "$(id -u)" = 0 ] || fail "it must run as root, to make a base image and run a container."
work=$(mktemp --directory /var/tmp/topthree-image.XXXXXX)
trap clean_up EXIT
need_tools
photo=${PHOTO:-}
if [ -z "$photo" ]; then
  photo=$work/coffee.png EXPECT=${EXPECT-espresso}
  "$bin/python" -c 'import sys, skimage; skimage.io.imsave(sys.argv[1], skimage.data.coffee())' "$photo"
fi
make_base
make_context
share_pip_configuration
build_image
check_contents
write_sbom
check_service
say "passed"
