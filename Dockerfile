# Each image is a static binary and nothing else: no shell, no library. `make build` makes the binaries, `make image` the images.
FROM scratch AS controller
COPY bin/mayfly-controller /mayfly-controller
ENTRYPOINT ["/mayfly-controller"]
CMD ["run"]

# The last one is the one that is built where no other is named: that of the node plugin.
FROM scratch
COPY bin/mayfly /mayfly
ENTRYPOINT ["/mayfly"]
CMD ["node"]
