# fastmtl on NVIDIA GPUs; building takes no GPU, running takes the NVIDIA Container Toolkit:
#   docker build -f packaging/docker/cuda.Dockerfile -t fastmtl-cuda .
#   docker run --rm --gpus all -v "$PWD:/work" fastmtl-cuda info
# CUDA is that of the compiler; PyTorch brings a runtime of its own, and the kernels hold theirs.
ARG CUDA=12.8.1
ARG UBUNTU=ubuntu24.04

FROM nvidia/cuda:${CUDA}-devel-${UBUNTU} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
# "90" or "80;90" takes less time than all that CMakeLists.txt lists.
ARG CUDA_ARCHS=""
RUN python3 -m venv /venv \
    && FASTMTL_NATIVE=on FASTMTL_CUDA=on CUDA_ARCHS="${CUDA_ARCHS}" \
       /venv/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

# The same system, so that the wheel's Python and C library are those that it was built for.
FROM nvidia/cuda:${CUDA}-base-${UBUNTU}
RUN apt-get update && apt-get install --yes --no-install-recommends gcc python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/venv/bin:$PATH
RUN python3 -m venv /venv && pip install --no-cache-dir torch
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir /wheels/*.whl
# The number that the first user of most machines has, so that what is mounted can be written to.
RUN useradd --create-home --non-unique --uid 1000 user
USER user
WORKDIR /work
ENTRYPOINT ["fastmtl"]
CMD ["info"]
