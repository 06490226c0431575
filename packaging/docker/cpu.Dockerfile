# fastmtl on the CPU:
#   docker build -f packaging/docker/cpu.Dockerfile -t fastmtl .
#   docker run --rm -v "$PWD:/work" fastmtl train --data clips.npz --out runs/first
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
# A compiler that fails is an error here: the image is for speed.
RUN FASTMTL_NATIVE=on FASTMTL_CUDA=off pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl
# The number that the first user of most machines has, so that what is mounted can be written to.
RUN useradd --create-home --non-unique --uid 1000 user
USER user
WORKDIR /work
ENTRYPOINT ["fastmtl"]
CMD ["info"]
