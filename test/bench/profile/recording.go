package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
)

// kinds are the profiles of each scenario, by the ends of their files' names.
func kinds() []string { return []string{"cpu", "allocs", "mutex", "block"} }

// recordCPU begins a CPU profile, and returns what ends it.
func recordCPU(prefix string) (end func() error, err error) {
	f, err := os.Create(prefix + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// recordRest begins the other profiles, which would disturb one of the CPU, and returns what ends them.
func recordRest(prefix string) (end func() error, err error) {
	const before, after = ".before", ".after"
	if err := write("allocs", prefix+before); err != nil {
		return nil, err
	}
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	return func() error {
		runtime.SetMutexProfileFraction(0)
		runtime.SetBlockProfileRate(0)
		err := errors.Join(write("mutex", prefix+".mutex"), write("block", prefix+".block"), write("allocs", prefix+after))
		if err != nil {
			return err
		}
		err = subtract(prefix+after, prefix+before, prefix+".allocs")
		return errors.Join(err, os.Remove(prefix+after), os.Remove(prefix+before))
	}, nil
}

func write(profile, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(profile).WriteTo(f, 0), f.Close())
}

// subtract writes what a profile has beyond an earlier one of the same process.
func subtract(after, before, path string) error {
	cmd := exec.Command("go", "tool", "pprof", "-proto", "-output="+path, "-base="+before, after)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("subtract what was before: %w: %s", err, out)
	}
	return nil
}
