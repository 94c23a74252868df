# The sidecar's image: slim or distroless from one file, by its base alone (docs/compose.md). The target sidecar-dev adds
# the tools for development and attacks to it; the product's image has none of them.
#
#   docker build -t sidecar:dev .
#   docker build -t sidecar-dev:dev --target sidecar-dev .
#   docker build -t sidecar:dev --build-arg RUNTIME_IMAGE=gcr.io/distroless/python3-debian13:nonroot .
#
# Both bases need the same Python and C library. A release pins them by digest through these arguments. With SOURCE_DATE_EPOCH,
# the same sources on the same bases give the same image, byte for byte (`make image` sets it to the last commit's time).
ARG PYTHON_IMAGE=python:3.13-slim
ARG RUNTIME_IMAGE=${PYTHON_IMAGE}

FROM ${PYTHON_IMAGE} AS build
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/otel.txt requirements/health.txt requirements/
# Wheels built with Rust need libgcc, which a distroless base may lack.
# A --target folder, not a virtual environment, which would be tied to this base's interpreter.
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m pip install -q --no-compile --require-hashes -r requirements/build.txt --target /build \
 && python3 -m pip install -q --no-compile --require-hashes --only-binary :all: -r requirements/run.txt -r requirements/otel.txt --target /opt/sidecar/lib \
 && rm -rf /opt/sidecar/lib/bin \
 && mkdir /opt/sidecar/native && cp -L /usr/lib/*/libgcc_s.so.1 /opt/sidecar/native/
# The health check: a static program, so that neither base needs a compiler, a C library or a shell. Zig's wheel is a C
# compiler with musl.
COPY sidecar/healthcheck.c ./
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m pip install -q --no-compile --require-hashes --only-binary :all: -r requirements/health.txt --target /zig \
 && ZIG_GLOBAL_CACHE_DIR=/zig/cache ZIG_LOCAL_CACHE_DIR=/zig/cache PYTHONPATH=/zig \
    python3 -m ziglang cc -target "$(uname -m)-linux-musl" -static -Os -s -o /opt/sidecar/native/healthcheck healthcheck.c \
 && rm -rf /zig
COPY pyproject.toml README.md LICENSE ./
# The native engine, where `make native` has built its wheel for this machine; without it the image has Python's alone.
# The brackets let the folder be absent: BuildKit requires the folders before the first wildcard.
COPY LICENSE [b]uild/native/*.whl wheels/
RUN for wheel in wheels/*.whl; do \
      [ ! -e "$wheel" ] || python3 -m pip install -q --no-compile --no-cache-dir --no-deps --no-index --target /opt/sidecar/lib "$wheel"; \
    done
COPY core core
COPY sidecar sidecar
COPY .ci/sbom.py .ci/
# The root is read-only at run time: modules not compiled here would be compiled at every start. One process compiles them:
# what it compiled before shows in the bytes. Each part gets its folders from the root on, all of one time: COPY keeps the
# times of what it copies, and would give folders that it makes itself the time of day.
ARG SOURCE_DATE_EPOCH=0
RUN PYTHONPATH=/build python3 -m pip install -q --no-compile --no-cache-dir --no-deps --no-build-isolation --target /opt/sidecar/app ./core . \
 && rm -rf /opt/sidecar/app/bin \
 && mkdir /opt/sidecar/share \
 && python3 .ci/sbom.py /opt/sidecar/lib /opt/sidecar/app /opt/sidecar/native >/opt/sidecar/share/sbom.cdx.json \
 && PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash /opt/sidecar/lib /opt/sidecar/app \
 && chmod -R a+rX,a-w /opt/sidecar \
 && for part in native lib share app; do \
      mkdir -p /parts/$part/opt/sidecar && cp -a /opt/sidecar/$part /parts/$part/opt/sidecar/; \
    done \
 && find /parts -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +

FROM build AS build-dev
ARG SOURCE_DATE_EPOCH=0
# The demo ends with an audit, whose database needs libstdc++, which a distroless base may lack.
COPY requirements/pretty.txt requirements/audit.txt requirements/
RUN --mount=type=cache,target=/var/cache/pip \
    python3 -m pip install -q --no-compile --require-hashes --only-binary :all: -r requirements/pretty.txt -r requirements/audit.txt --target /opt/sidecar/dev
COPY audit audit
COPY dev dev
RUN PYTHONPATH=/build python3 -m pip install -q --no-compile --no-cache-dir --no-deps --no-build-isolation --target /opt/sidecar/dev ./audit ./dev \
 && rm -rf /opt/sidecar/dev/bin \
 && PYTHONHASHSEED=0 python3 -m compileall -q -f --invalidation-mode unchecked-hash /opt/sidecar/dev \
 && chmod -R a+rX,a-w /opt/sidecar/dev \
 && mkdir -p /parts/dev/opt/sidecar/native /parts/dev/opt/sidecar/share \
 && cp -a /opt/sidecar/dev /parts/dev/opt/sidecar/ \
 && cp -L /usr/lib/*/libstdc++.so.6 /parts/dev/opt/sidecar/native/ \
 && python3 .ci/sbom.py /opt/sidecar/lib /opt/sidecar/app /opt/sidecar/dev /opt/sidecar/native /parts/dev/opt/sidecar/native \
      >/parts/dev/opt/sidecar/share/sbom.cdx.json \
 && chmod -R a+rX,a-w /parts/dev/opt/sidecar/share \
 && find /parts/dev -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +

FROM ${RUNTIME_IMAGE} AS sidecar
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="delegation-sidecar" \
      org.opencontainers.image.description="A reverse proxy beside every AI agent that makes every hop attributable" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PYTHONPATH=/opt/sidecar/app:/opt/sidecar/lib \
    LD_LIBRARY_PATH=/opt/sidecar/native \
    PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /parts/native/ /
COPY --from=build /parts/lib/ /
COPY --from=build /parts/share/ /
COPY --from=build /parts/app/ /
# By number: Kubernetes cannot verify from a name that it is not root.
USER 65532:65532
WORKDIR /
STOPSIGNAL SIGTERM
EXPOSE 7443 7090
# On a starved machine a sidecar takes a minute to start. A check that succeeds ends the period.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s --start-interval=1s --retries=3 \
    CMD ["/opt/sidecar/native/healthcheck"]
ENTRYPOINT ["python3", "-m", "sidecar.cli"]
CMD ["run"]

FROM sidecar AS sidecar-dev
LABEL org.opencontainers.image.title="sidecar-dev" \
      org.opencontainers.image.description="The sidecar with its tools for development: identities for nothing, attacks. Never for production."
ENV PYTHONPATH=/opt/sidecar/app:/opt/sidecar/lib:/opt/sidecar/dev
COPY --from=build-dev /parts/dev/ /

# Built where no target is named.
FROM sidecar
