# docker build -t easydreamer .
# docker run --rm -it --gpus all -v "$PWD/runs:/data/runs" easydreamer --config dmc-walker-walk
#
# Without a GPU: leave out --gpus all. No CI builds this file.
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libegl1 libgl1 libgl1-mesa-dri libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /easydreamer
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
# With the driver's "graphics" MuJoCo draws on the GPU, too.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
WORKDIR /data
ENTRYPOINT ["dreamer"]
