package main

import (
	"errors"
	"flag"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/cmd/flags"
)

// FuzzFlags: the command line and the environment give options that can be used, or an error in the command line.
func FuzzFlags(f *testing.F) {
	f.Add("--node-name=a", "MAYFLY_DRIVER_NAME", "a,b")
	f.Add("--node-name=a\n--driver-name=csi.mayfly.dev\n--driver-name=csi.cert-manager.io\n--trust-domain=\n--log-level=debug", "MAYFLY_LOG_FORMAT", "text")
	f.Add("--node-name=a\n--kubelet-root=\n--csi-endpoint=unix:///a\n--state-dir=/b\n--signer=local\n--local-ca=/c", "MAYFLY_KEEP_REQUESTS", "-1")
	f.Add("--node-name=a\n--trust-domain=Example.org:1\n--spiffe-path=/${POD_NAEM}", "MAYFLY_SPIFFE_PATH", "x/..")
	f.Add("-h", "MAYFLY_ISSUER_NAME", "ca")
	f.Fuzz(func(t *testing.T, args, name, value string) {
		o, err := parse(strings.Split(args, "\n"), func(n string) string {
			if n == name {
				return value
			}
			return ""
		}, io.Discard)
		if err != nil {
			if !errors.As(err, new(flags.Error)) && !errors.Is(err, flag.ErrHelp) {
				t.Errorf("not an error in the command line: %v", err)
			}
			return
		}
		if o.NodeName == "" || !filepath.IsAbs(o.CSIEndpoint) || !filepath.IsAbs(o.StateDir) || o.KeepRequests != nil && *o.KeepRequests < 0 || o.defaults().Check() != nil {
			t.Errorf("%+v", o)
		}
		seen := map[string]bool{}
		for _, n := range o.driverNames() {
			if seen[n.Name] || strings.ContainsAny(n.Name, "/\x00") || n.Name == ".." || !filepath.IsAbs(n.Endpoint) {
				t.Errorf("driver names %+v", o.driverNames())
			}
			seen[n.Name] = true
		}
	})
}
