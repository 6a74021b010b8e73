# The canary router, and the `coalmine` program for whoever steers it; no torch.
# Build from the repository's root:
#   docker build -f deploy/docker/router.Dockerfile -t coalmine-router .

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python", "-m", "venv", "/opt/coalmine"]
ENV PATH=/opt/coalmine/bin:$PATH
WORKDIR /build
COPY . .
RUN pip install -c constraints.txt ".[router]"

FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/coalmine coalmine \
    && install -d -o coalmine -g coalmine /var/lib/coalmine /etc/coalmine
COPY --from=build /opt/coalmine /opt/coalmine
ENV PATH=/opt/coalmine/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER coalmine
WORKDIR /var/lib/coalmine
# The state: what was decided outlives the container.
VOLUME ["/var/lib/coalmine"]
EXPOSE 9001 9002 9003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9003/readyz', timeout=2)"]
ENTRYPOINT ["coalmine"]
CMD ["router", "run", "--config", "/etc/coalmine/router.yaml"]
