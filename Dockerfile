# One controller. Expects the built program at docker/holdfast: `make image` puts it there and builds this.
#
# To compile inside Docker instead, where a crate registry can be reached:
#   FROM rust:1-bookworm AS build
#   RUN apt-get update && apt-get install -y clang libclang-dev protobuf-compiler libprotobuf-dev
#   COPY . /src
#   RUN cd /src && cargo build --release --locked --workspace --bins
# and below: COPY --from=build /src/target/release/holdfast /usr/local/bin/
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN groupadd --system --gid 10001 holdfast \
 && useradd --system --uid 10001 --gid holdfast --home-dir /data --no-create-home --shell /usr/sbin/nologin holdfast \
 && install -d -o holdfast -g holdfast -m 0750 /data /etc/holdfast

COPY docker/entrypoint.sh docker/healthcheck.sh docker/holdfast /usr/local/bin/

USER holdfast
WORKDIR /data
VOLUME /data
# Clients, other controllers, metrics and health.
EXPOSE 2379 2380 2381
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 CMD ["healthcheck.sh"]
ENTRYPOINT ["entrypoint.sh"]
CMD ["serve"]
