package flags

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// Version returns the version of the module, as the go command stamps it.
func Version() string { return version(stamped()) }

func version(info debug.BuildInfo) string { return cmp.Or(info.Main.Version, "(devel)") }

// stamped returns what the go command has written into this program.
func stamped() debug.BuildInfo {
	if info, ok := debug.ReadBuildInfo(); ok {
		return *info
	}
	return debug.BuildInfo{}
}

// describe returns what `version` prints: the version, the commit of the sources and its date, and the version of Go.
// There is no time of the build, so that the same sources make the same program.
func describe(info debug.BuildInfo) string {
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	known := func(text string) string { return cmp.Or(text, "unknown") }
	return fmt.Sprintf("version: %s\ncommit:  %s\ndate:    %s\ngo:      %s %s/%s\n",
		version(info), known(settings["vcs.revision"]), known(settings["vcs.time"]),
		known(info.GoVersion), known(settings["GOOS"]), known(settings["GOARCH"]))
}
