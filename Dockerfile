# syntax=docker/dockerfile:1
# The image of every streamsocial-billing process: worker by default, gateway or any other command by argument.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt setup.cfg pyproject.toml README.md ./
COPY streamsocial_billing streamsocial_billing
COPY tables tables
COPY packages/faust-exactly-once packages/faust-exactly-once
RUN python -m venv /opt/billing \
    && /opt/billing/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt packages/faust-exactly-once .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/billing /opt/billing
ENV PATH=/opt/billing/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --system --uid 10001 --home-dir /data billing && install -d -o billing -g billing /data
USER 10001
WORKDIR /data
# tables on disk: give each worker a volume of its own; without one a restart reads them from Kafka again
VOLUME /data
EXPOSE 6066
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6066/health', timeout=2)"]
ENTRYPOINT ["streamsocial-billing"]
CMD ["--datadir=/data", "worker", "--web-bind=0.0.0.0", "--web-port=6066"]
