#!/usr/bin/env bash
# Builds the image with buildah, where there is no Docker daemon (as root, since debootstrap needs it):
#   docker/buildah.sh
#   IMAGE=dormouse:cuda docker/buildah.sh --build-arg DEVICE=cuda
# On a base image of your own instead of a fresh Debian:
#   BASE_IMAGE=python:3.12-slim-bookworm docker/buildah.sh
# Further arguments go to `buildah build`, for instance to install from a local directory of wheels:
#   docker/buildah.sh --volume "$PWD/wheels:/wheels:ro" --build-arg PIP_FIND_LINKS=/wheels
# The Debian base is made once and kept; `buildah rmi localhost/dormouse-base` forgets it.
# DEBIAN_MIRROR names a mirror other than debootstrap's own.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
debian_base=localhost/dormouse-base

make_debian_base() {
    local container root
    container=$(buildah from scratch)
    # Expanded now: the trap runs outside the function, where the local is gone.
    # shellcheck disable=SC2064
    trap "buildah rm '$container' >/dev/null" EXIT
    root=$(buildah mount "$container")
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    buildah umount "$container" >/dev/null
    buildah commit --format docker "$container" "$debian_base"
}

if [[ -z ${BASE_IMAGE:-} ]]; then
    BASE_IMAGE=$debian_base
    if ! buildah inspect --type image "$debian_base" >/dev/null 2>&1; then
        make_debian_base
    fi
fi

# Docker's format keeps the HEALTHCHECK; chroot isolation also works inside a container.
buildah build --isolation chroot --format docker --layers --build-arg "BASE_IMAGE=$BASE_IMAGE" \
    --tag "${IMAGE:-dormouse}" --file "$repository/docker/Dockerfile" "$@" "$repository"
