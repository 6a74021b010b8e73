# The inference server, with torch for the CPU. Build from the repository's root:
#   docker build -f deploy/docker/server.Dockerfile -t coalmine-server .
# EXTRA=demo adds what trains the demo's models.

FROM python:3.11-slim AS build
ARG EXTRA=server
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python", "-m", "venv", "/opt/coalmine"]
ENV PATH=/opt/coalmine/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
# Alone, from the index without CUDA; what it depends on comes from PyPI with the rest.
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
    "$(grep '^torch==' constraints.txt)"
COPY . .
RUN pip install -c constraints.txt ".[${EXTRA}]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/coalmine coalmine \
    && install -d -o coalmine -g coalmine /var/lib/coalmine /models
COPY --from=build /opt/coalmine /opt/coalmine
# HOME: libraries that look for a cache find a folder that can be written to.
ENV PATH=/opt/coalmine/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER coalmine
WORKDIR /var/lib/coalmine
VOLUME ["/var/lib/coalmine"]
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8002/readyz', timeout=2)"]
ENTRYPOINT ["coalmine"]
CMD ["server", "run", "--model-repository", "/models", "--listen", "0.0.0.0:8001", "--http", "0.0.0.0:8002"]
