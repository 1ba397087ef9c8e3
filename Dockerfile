# Written for any OCI builder, but not built where the project is tested: there is no container engine there.
#
#   docker build -t perennial .
#   docker run -p 8000:8000 -v perennial-data:/var/lib/perennial --shm-size 256m perennial
#
# With PERENNIAL_DATABASE_URL set, the embedded PostgreSQL does not start and the volume is not used.

FROM python:3.11-slim AS packages
WORKDIR /srv/perennial
COPY requirements.txt .
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.11-slim
RUN useradd --system --user-group --no-create-home --shell /usr/sbin/nologin perennial \
    && install -d -o perennial -g perennial -m 0700 /var/lib/perennial
WORKDIR /srv/perennial
COPY --from=packages /srv/perennial/.venv .venv
COPY alembic.ini ./
COPY migrations migrations
COPY app app
USER perennial
ENV PERENNIAL_DATA_DIR=/var/lib/perennial PERENNIAL_HOST=0.0.0.0 PORT=8000 PYTHONUNBUFFERED=1
VOLUME /var/lib/perennial
EXPOSE 8000
# The first start makes the database; a start after a hard stop replays what was acknowledged.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD [".venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/ready', timeout=4)"]
STOPSIGNAL SIGTERM
CMD [".venv/bin/python", "-m", "app.launcher"]
