# JupyterLab on the notebooks, on a machine with an NVIDIA GPU and its container toolkit:
#   docker build -t video-invariances .
#   docker run --gpus all --ipc=host -p 127.0.0.1:8888:8888 \
#     -v "$PWD/data:/project/data" -v "$PWD/outputs:/project/outputs" video-invariances
# PyTorch's wheels include CUDA; the host needs only the driver (docs/machines.md).
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends git make unar \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /project

# Packages first: the layer is reused until one of these files changes.
COPY Makefile pyproject.toml requirements.lock README.md ./
COPY lib/__init__.py lib/
RUN PIP_NO_CACHE_DIR=1 make .venv/.ready

COPY . .
EXPOSE 8888
CMD ["make", "lab", "LAB=--ip=0.0.0.0 --no-browser --allow-root"]
