# docker build -t mribench .
# docker run --rm --network none -v "$PWD:/work" --user "$(id -u):$(id -g)" mribench demo
FROM python:3.11-slim

# A home that every --user may write: numba and matplotlib keep caches there.
ENV HOME=/tmp/home PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN mkdir -m 1777 /tmp/home

COPY . /src
RUN pip install /src && rm -r /src

WORKDIR /work
USER 65534:65534
ENTRYPOINT ["mribench"]
CMD ["--help"]
