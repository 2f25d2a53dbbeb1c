// Command release makes the files of a release from one commit: images for each platform, the chart, licences,
// an SBOM, provenance and checksums. Whoever has the commit and the version of Go makes the same bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	o := options{}
	flag.StringVar(&o.Repository, "repository", ".", "the checkout whose commit is released")
	flag.StringVar(&o.Version, "version", "", "the version, such as v0.1.0; the v may be left out")
	flag.StringVar(&o.Out, "out", "out/release", "the directory under which a directory of the version is written")
	flag.BoolVar(&o.IgnoreChanges, "ignore-changes", false, "leave out changes of the checkout that no commit has")
	platforms := flag.String("platforms", "linux/amd64,linux/arm64", "the platforms of the images")
	flag.Parse()
	o.Platforms = strings.Split(*platforms, ",")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := release(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
