# One image for the head and the workers; compose/dev builds and runs it. By hand:
#   docker build -t ndif-ray .
#   docker build -t ndif-ray --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .   (no CUDA)
#   docker run --rm --shm-size=2g -v ndif-state:/opt/ndif-ray/var ndif-ray head
#
# Everything listens on loopback until it is told otherwise, also in a container: HOST_IP,
# RAY_DASHBOARD_HOST and NDIF_SERVE__HOST (0.0.0.0 each) open the cluster, the dashboard and the gateway.
FROM mambaorg/micromamba:2.5.0

WORKDIR /opt/ndif-ray
USER root
# what is mounted over these folders gets their owner
RUN chown "$MAMBA_USER:$MAMBA_USER" . && install -d -o "$MAMBA_USER" -g "$MAMBA_USER" var token huggingface
USER $MAMBA_USER

# The packages first: they change seldom and take minutes, our own code changes often
ARG PIP_EXTRA_INDEX_URL=""
COPY --chown=$MAMBA_USER:$MAMBA_USER conda-env.yml constraints.txt pyproject.toml README.md ./
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" \
    micromamba install --yes --name base --file conda-env.yml \
    && micromamba clean --all --yes

COPY --chown=$MAMBA_USER:$MAMBA_USER . .
RUN PIP_NO_CACHE_DIR=1 micromamba run --name base python -m pip install --no-deps --editable .

# The ports inside the container; compose maps them to those of a service started by hand
ENV PATH=/opt/conda/bin:$PATH \
    NDIF_NO_VENV=1 \
    PYTHONUNBUFFERED=1 \
    RAY_HEAD_INTERNAL_PORT=6379 \
    RAY_CLIENT_INTERNAL_PORT=10001 \
    RAY_DASHBOARD_INTERNAL_PORT=8265 \
    RAY_SERVE_INTERNAL_PORT=8267
EXPOSE 6379 10001 8265 8267 8280
VOLUME /opt/ndif-ray/var

HEALTHCHECK --interval=30s --timeout=20s --start-period=180s --retries=3 \
    CMD ["python", "-m", "scheduler.launch.health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["./start.sh"]
CMD ["head"]
