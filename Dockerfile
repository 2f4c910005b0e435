# One image a target; charts/conch calls them <registry>/<repository>/<target>:
#
#   docker build --target gateway --tag conch.local/conch/gateway:0.1.0 .
#
#   gateway             callers' door, and the `conch` command line: staging, preflight, `helm test`; no torch
#   trainer             the trainer and its workers
#   converter           the converter and its workers
#   converter-tensorrt  workers that build TensorRT plans too, on NVIDIA's own image
#   triton-backends     Conch's two backends of Triton, brought to pools that run NVIDIA's image unchanged
#
# TORCH_INDEX says which torch trainer and converter get: https://download.pytorch.org/whl/cpu or
# https://download.pytorch.org/whl/cu130, say; workers on GPUs want the latter. tests/images runs the install
# steps below in clean environments.

# Torch is a layer of its own, which most changes leave alone; TOKENIZERS_PARALLELISM is no secret.
# hadolint global ignore=DL3059,DL3064

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
# Of the Python in NVIDIA's image of Triton, whose stubs run the backends.
ARG TRITON_PYTHON_IMAGE=python:3.12.12-slim-bookworm
ARG TENSORRT_IMAGE=nvcr.io/nvidia/tensorrt:26.06-py3
ARG BUSYBOX_IMAGE=busybox:1.37.0

# --- what all images of ours install from, and into what ------------------------------------------------------
FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Without pip of its own: the images that are shipped install nothing.
RUN python -m venv --without-pip /opt/conch/venv
COPY pyproject.toml constraints.txt README.md ./
COPY protos ./protos
COPY services ./services

FROM build AS build-gateway
RUN pip --python /opt/conch/venv/bin/python install --constraint constraints.txt ".[gateway,kubernetes,cli]"

FROM build AS build-trainer
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip --python /opt/conch/venv/bin/python install --index-url "${TORCH_INDEX}" torch==2.13.0
RUN pip --python /opt/conch/venv/bin/python install --constraint constraints.txt ".[trainer,kubernetes]"

FROM build AS build-converter
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip --python /opt/conch/venv/bin/python install --index-url "${TORCH_INDEX}" torch==2.13.0
RUN pip --python /opt/conch/venv/bin/python install --constraint constraints.txt ".[converter,kubernetes]"
# What the export to OpenVINO's IR takes in place of the above; pods have no way to install it.
RUN pip --python /opt/conch/venv/bin/python install --no-deps --target /opt/conch/export \
    --requirement services/converter/ir_requirements.txt

# --- what all images of ours run as ---------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS runtime
RUN groupadd --gid 10001 conch && useradd --uid 10001 --gid conch --no-create-home --home-dir /tmp conch
# The root file system is read-only: libraries that want a cache find it in /tmp, which is a volume.
ENV PATH=/opt/conch/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false CONCH_HOME=/var/lib/conch/home
USER 10001:10001
WORKDIR /tmp

FROM runtime AS gateway
COPY --from=build-gateway /opt/conch /opt/conch
CMD ["python", "-m", "services.gateway"]

FROM runtime AS trainer
COPY --from=build-trainer /opt/conch /opt/conch
CMD ["python", "-m", "services.trainer"]

FROM runtime AS converter
COPY --from=build-converter /opt/conch /opt/conch
CMD ["python", "-m", "services.converter"]

# --- NVIDIA's TensorRT and the converter over it --------------------------------------------------------------
FROM ${TENSORRT_IMAGE} AS converter-tensorrt
WORKDIR /src
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
# NVIDIA's images hold every installation to their own versions; ours are those that certificates are measured with.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONSTRAINT=""
# With the image's own packages: tensorrt is one of them, and of the version of its libraries.
RUN python3 -m venv --without-pip --system-site-packages /opt/conch/venv
COPY pyproject.toml constraints.txt README.md ./
COPY protos ./protos
COPY services ./services
RUN python3 -m pip --python /opt/conch/venv/bin/python install --index-url "${TORCH_INDEX}" torch==2.13.0
RUN python3 -m pip --python /opt/conch/venv/bin/python install --constraint constraints.txt ".[converter,kubernetes]"
RUN python3 -m pip --python /opt/conch/venv/bin/python install --no-deps --target /opt/conch/export \
    --requirement services/converter/ir_requirements.txt
ENV PATH=/opt/conch/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false CONCH_HOME=/var/lib/conch/home
USER 10001:10001
WORKDIR /tmp
CMD ["python", "-m", "services.converter"]

# --- Conch's backends of Triton -------------------------------------------------------------------------------
FROM ${TRITON_PYTHON_IMAGE} AS build-triton-backends
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY services/triton/requirements.txt ./
COPY services/triton/backends ./backends
# All that the embedded Triton's environment has, but for that Triton itself.
RUN sed -i '/^nvidia-pytriton/d' requirements.txt \
    && pip install --no-deps --target /backends/packages --requirement requirements.txt
# As `services.triton.launcher` lays them out: each beside the modules that all share, and the image's own
# backends by links, for tritonserver looks in one folder.
RUN for ours in seq2seq openvino_generation; do \
        mkdir "/backends/$ours" && cp -R backends/*.py "backends/$ours/." "/backends/$ours/"; \
    done \
    && for stock in python onnxruntime openvino; do \
        ln -s "/opt/tritonserver/backends/$stock" "/backends/$stock"; \
    done

FROM ${BUSYBOX_IMAGE} AS triton-backends
COPY --from=build-triton-backends /backends /opt/conch/backends
USER 10001:10001
# The container's argument is the folder to fill.
ENTRYPOINT ["cp", "-dR", "/opt/conch/backends/."]
CMD ["/backends"]
