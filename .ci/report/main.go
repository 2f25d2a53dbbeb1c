// Command report reads the output of go test -json from its standard input, shows what a person wants to see of it, and
// ends with the line "N passed, N failed". It fails if a test failed or was skipped, or if none ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// An event is what test2json says of one test, or of a package where Test is empty (go doc cmd/test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

type report struct {
	passed, failed, skipped int
	output                  map[string]*strings.Builder // Of the tests and packages under way.
	out                     io.Writer
}

func main() {
	r := report{output: map[string]*strings.Builder{}, out: os.Stdout}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	if r.skipped > 0 {
		fmt.Printf("%d skipped: a test that does not run is a failure\n", r.skipped)
	}
	fmt.Printf("%d passed, %d failed\n", r.passed, r.failed+r.skipped)
	if r.failed+r.skipped > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	for lines := bufio.NewReader(in); ; {
		line, err := lines.ReadString('\n')
		var e event
		switch {
		case line == "":
		case json.Unmarshal([]byte(line), &e) == nil:
			r.take(e)
		default: // Of make, or of a command that is not go test.
			fmt.Fprint(r.out, line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		if r.output[key] == nil {
			r.output[key] = new(strings.Builder)
		}
		r.output[key].WriteString(e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		r.end(e, key)
	}
}

// end counts a test, and shows the output of one that did not pass. A package counts only if it fails: by its tests or without one.
func (r *report) end(e event, key string) {
	output := r.output[key]
	delete(r.output, key)
	isTest := e.Test != ""
	switch {
	case e.Action == "pass" && isTest:
		r.passed++
	case e.Action == "skip" && isTest:
		r.skipped++
	case e.Action == "fail":
		r.failed++
	}
	// A package's skip says that it has no tests.
	if output != nil && (!isTest || e.Action != "pass") {
		fmt.Fprint(r.out, output)
	}
}
