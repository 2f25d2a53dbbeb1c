// Package flags reads the flags of commands, and has those that several commands share.
package flags

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The exit codes of a command.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
)

// Error is an error in the command line, or of a check that could not look: one clear line and exit code 2.
type Error struct{ Err error }

// Error returns the message of the error.
func (e Error) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e Error) Unwrap() error { return e.Err }

// Errorf returns an error in the command line.
func Errorf(format string, args ...any) error { return Error{Err: fmt.Errorf(format, args...)} }

// ExitCode prints err, with which a command ended, and returns its exit code.
func ExitCode(command string, err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return ExitOK
	}
	fmt.Fprintf(stderr, "%s: %v\n", command, err)
	if errors.As(err, new(Error)) {
		return ExitUsage
	}
	return ExitError
}

// Variable returns the environment variable that sets a flag.
func Variable(name string) string {
	return "MAYFLY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Long returns the arguments with the long names of flags in place of their letters, such as "filename" of "f". It
// knows -f x and -f=x.
func Long(args []string, names map[string]string) []string {
	long := slices.Clone(args)
	for i, arg := range long {
		letter, value, given := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if name, known := names[letter]; known && strings.HasPrefix(arg, "-") {
			long[i] = "--" + name
			if given {
				long[i] += "=" + value
			}
		}
	}
	return long
}

// Parse reads the flags, each from the environment first and then from the command line. For --help it prints them.
func Parse(f *flag.FlagSet, args []string, getenv func(string) string, stdout io.Writer) error {
	f.SetOutput(io.Discard)
	var err error
	f.VisitAll(func(fl *flag.Flag) {
		if value := getenv(Variable(fl.Name)); value != "" && err == nil {
			if e := f.Set(fl.Name, value); e != nil {
				err = Errorf("%s=%q: %w", Variable(fl.Name), value, e)
			}
		}
		if r, ok := fl.Value.(interface{ replace() }); ok {
			r.replace()
		}
	})
	if err != nil {
		return err
	}
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		f.SetOutput(stdout)
		fmt.Fprintf(stdout, "Flags of %s; %s stands in for --driver-name, and so "+
			"on:\n", f.Name(), Variable("driver-name"))
		f.PrintDefaults()
		return err
	} else if err != nil {
		return Error{Err: err}
	}
	if f.NArg() > 0 {
		return Errorf("unexpected argument %q", f.Arg(0))
	}
	return nil
}
