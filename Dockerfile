# docker build -t reid-tune .
# docker run --rm --gpus all --shm-size 8g -v "$PWD":/workspace -w /workspace reid-tune sweep FILE --resume auto
#
# This file has not been built yet.
FROM python:3.11-slim
# Ray sends no usage reports, also where `ray start` is the first process.
ENV PYTHONDONTWRITEBYTECODE=1 RAY_USAGE_STATS_ENABLED=0 PATH=/opt/reid-tune/.venv/bin:$PATH
# gcc and the C library's headers for train.compile on a GPU; git for the commit in a run's run.json; wget for KubeRay's
# probes.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git make wget && rm -rf /var/lib/apt/lists/*
# KubeRay starts Ray in a login shell, which resets PATH.
RUN echo 'PATH=/opt/reid-tune/.venv/bin:$PATH' > /etc/profile.d/reid-tune.sh
WORKDIR /opt/reid-tune
# The dependencies first: they change less often than the code.
COPY Makefile pyproject.toml constraints.txt README.md ./
RUN mkdir reid_tune && touch reid_tune/__init__.py && make setup
COPY . .
RUN python -m compileall -q reid_tune
ENTRYPOINT ["reid-tune"]
