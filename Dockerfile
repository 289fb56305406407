# A machine with a GPU: the host brings the driver and the NVIDIA container toolkit, torch its own CUDA libraries.
#
#   docker build --tag robust-rlhf .
#   docker run --gpus all --name measured robust-rlhf make gpu
#   docker cp measured:/home/robust/robust-rlhf/benchmarks/results/gpu.json .
FROM python:3.12.11-slim-bookworm

# make for the targets, git for the version and the revision of records, a compiler for torch.compile.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 robust

USER robust
ENV PATH=/home/robust/venv/bin:$PATH \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN python -m venv /home/robust/venv && mkdir /home/robust/robust-rlhf
WORKDIR /home/robust/robust-rlhf

COPY --chown=robust constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch
COPY --chown=robust . ./
RUN pip install --no-cache-dir -c constraints.txt -e ".[trl,data]"

CMD ["robust-rlhf", "--help"]
