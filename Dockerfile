# The image holds the program, the certificates of public authorities and an empty /data;
# no shell. See docs/config.md for the configuration and docker-compose.yml for an example.

FROM golang:1.26.4 AS build
WORKDIR /src
# The modules first: they change less often than the sources.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The checkout's .git stays outside; "make image" tells what it says.
ARG VERSION=unknown
ARG REVISION=unknown
ARG BRANCH=unknown
ARG BUILD_DATE=unknown
RUN make build VERSION="$VERSION" REVISION="$REVISION" BRANCH="$BRANCH" BUILD_DATE="$BUILD_DATE" \
    && mkdir /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /LICENSE
# A volume that is made from this folder belongs to the user too.
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build /src/bin/sluice /bin/sluice
USER 65532:65532
EXPOSE 9201
VOLUME /data
ENTRYPOINT ["/bin/sluice"]
# Whoever gives arguments gives these too.
CMD ["--web.listen-address=0.0.0.0:9201", "--storage.path=/data"]
