# docker build -t easydreamer .
# docker build -t easydreamer --build-arg DEVICE=cpu --build-arg EXTRAS=atari .
# mkdir -p runs
# docker run --rm -it --gpus all --user "$(id -u):$(id -g)" -v "$PWD/runs:/data/runs" easydreamer --config dmc-walker-walk
#
# DEVICE=cpu: a torch without CUDA. EXTRAS: of pyproject.toml, separated by commas. Without a GPU: leave
# out --gpus all. --user: what is written to runs/ is yours. No CI builds this file.
FROM python:3.11-slim
ARG DEVICE=cuda
ARG EXTRAS=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libegl1 libgl1 libgl1-mesa-dri libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /easydreamer
COPY . .
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu \
            "$(grep -o 'torch>=[^"]*' pyproject.toml)"; \
    fi \
    && pip install --no-cache-dir -c constraints.txt -e ".${EXTRAS:+[$EXTRAS]}" \
    && useradd --create-home dreamer \
    && mkdir -p /data/runs && chmod 1777 /data /data/runs
# With the driver's "graphics" MuJoCo draws on the GPU, too.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
# Any user may write here, also one that --user names and the image does not know.
ENV HOME=/data
WORKDIR /data
USER dreamer
ENTRYPOINT ["dreamer"]
