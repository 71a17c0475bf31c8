# Two stages: a static binary, and nothing else but certificates. The same
# commit makes the same image:
#
#	buildah build --timestamp "$(git log -1 --format=%ct)" --build-arg VERSION=1.2.3 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# (docker buildx build takes the time from SOURCE_DATE_EPOCH, with --output …,rewrite-timestamp=true).
# TARGETOS and TARGETARCH come from --platform; linux on amd64 and arm64 are tested.
ARG GO_IMAGE=golang:1.26
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# One ARG a line: buildah knows only the first of several.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=development
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /chkpin ./cmd/chkpin

FROM scratch
ARG VERSION=development
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chkpin" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Not at /chkpin, where init containers have the volume that they share.
COPY --from=build /chkpin /bin/chkpin
USER 65532:65532
ENTRYPOINT ["/bin/chkpin"]
