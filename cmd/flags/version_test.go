package flags

import (
	"runtime/debug"
	"testing"
)

func TestVersionIsThatOfTheSources(t *testing.T) {
	for want, info := range map[string]debug.BuildInfo{
		"version: (devel)\ncommit:  unknown\ndate:    unknown\ngo:      unknown unknown/unknown\n": {},
		"version: v0.1.0\ncommit:  1af5\ndate:    2026-11-28T01:02:03Z\ngo:      go1.26.8 linux/arm64\n": {
			GoVersion: "go1.26.8",
			Main:      debug.Module{Version: "v0.1.0"},
			Settings: []debug.BuildSetting{
				{Key: "GOARCH", Value: "arm64"},
				{Key: "GOOS", Value: "linux"},
				{Key: "vcs.revision", Value: "1af5"},
				{Key: "vcs.time", Value: "2026-11-28T01:02:03Z"},
			},
		},
	} {
		if got := describe(info); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
}
