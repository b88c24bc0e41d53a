# Tercet in a container in which the two commands work:
#   docker build -t tercet .
#   docker run --rm tercet                  # scripts/demo
#   docker run --rm tercet scripts/test
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*
WORKDIR /tercet
# The packages are a layer of their own, which a change of the sources does not make anew.
COPY scripts/install-dependencies scripts/
RUN scripts/install-dependencies --with-tests && rm -rf /var/lib/apt/lists/*
# Nothing needs root.
RUN useradd --create-home tercet && chown tercet: .
USER tercet
COPY --chown=tercet . .
CMD ["scripts/demo"]
