# The image is the static binary and nothing else: no shell, no library. `make build` makes the binary, `make image` the image.
FROM scratch
COPY bin/mayfly /mayfly
ENTRYPOINT ["/mayfly"]
CMD ["node"]
