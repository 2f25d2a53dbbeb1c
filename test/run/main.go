// Command run runs parts of the test suite, each a target of the Makefile, some at a time. It says how long each part
// took and which tests were the slowest, and ends with the line "N passed, N failed". It fails if a part or a test
// failed, if a test was skipped, or if none ran.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sync/errgroup"
	"gotest.tools/gotestsum/testjson"
)

// slowest is how many of the slowest tests are listed.
const slowest = 10

// A part is a target of the Makefile, and what became of it.
type part struct {
	name  string
	took  time.Duration
	tests *testjson.Execution
	err   error // What make ended with.
}

func main() {
	dir := flag.String("dir", ".", "the directory of the Makefile")
	atOnce := flag.Int("at-once", 2, "how many parts run at a time, in the order that they are given")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	parts := run(ctx, os.Stdout, *dir, *atOnce, flag.Args())
	stop()
	if !report(os.Stdout, parts) {
		os.Exit(1)
	}
}

// run runs the parts.
func run(ctx context.Context, to io.Writer, dir string, atOnce int, names []string) []*part {
	out := &lines{out: to}
	parts := make([]*part, len(names))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, name := range names {
		parts[i] = &part{name: name, tests: &testjson.Execution{}}
		group.Go(func() error {
			parts[i].run(ctx, dir, out)
			return nil
		})
	}
	_ = group.Wait() // Each part keeps its own error.
	return parts
}

// run runs the part, and shows its packages as they end.
func (p *part) run(ctx context.Context, dir string, out *lines) {
	begin := time.Now()
	defer func() {
		p.took = time.Since(begin).Round(time.Second)
		fmt.Fprintf(out.of(p.name), "%s after %s\n", p.result(), p.took)
	}()
	cmd := exec.CommandContext(ctx, "make", "--directory", dir, p.name, "TESTFLAGS=-json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = out.of(p.name)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.err = err
		return
	}
	tests, err := testjson.ScanTestOutput(testjson.ScanConfig{
		Stdout: stdout, Handler: newProgress(out.of(p.name)), IgnoreNonJSONOutputLines: true,
	})
	p.tests, p.err = tests, cmp.Or(cmd.Wait(), err)
}

// result says how the part ended: skipped tests are failures.
func (p *part) result() string {
	if p.err != nil || len(p.tests.Failed()) > 0 || len(p.tests.Skipped()) > 0 {
		return "failed"
	}
	return "passed"
}

// progress shows each package of a part when it ends, the output of tests that failed, and what is not of go test.
type progress struct {
	testjson.EventFormatter
	out io.Writer
}

func newProgress(out io.Writer) progress {
	return progress{testjson.NewEventFormatter(out, "pkgname-and-test-fails", testjson.FormatOptions{HideEmptyPackages: true}), out}
}

func (p progress) Event(e testjson.TestEvent, tests *testjson.Execution) error {
	return p.Format(e, tests)
}

func (p progress) Err(text string) error {
	_, err := fmt.Fprintln(p.out, text)
	return err
}

// report says what failed, how long everything took, and the result, which it returns.
func report(out io.Writer, parts []*part) bool {
	var all []testjson.TestCase
	failed, green := 0, true
	took := table.NewWriter()
	took.AppendHeader(table.Row{"part", "result", "took", "tests"})
	for _, p := range parts {
		took.AppendRow(table.Row{p.name, p.result(), p.took, p.tests.Total()})
		green = green && p.result() == "passed"
		testjson.PrintSummary(out, p.tests, testjson.SummarizeAll)
		failed += len(p.tests.Failed()) + len(p.tests.Skipped())
		for _, name := range p.tests.Packages() {
			all = append(all, p.tests.Package(name).TestCases()...)
		}
	}
	fmt.Fprintln(out, took.Render())
	printSlowest(out, all)
	passed := max(len(all)-failed, 0)
	if green = green && passed > 0; !green {
		failed = max(failed, 1) // What failed may not be a test.
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	return green
}

// printSlowest lists the tests without subtests that took the longest.
func printSlowest(out io.Writer, all []testjson.TestCase) {
	parents := map[string]bool{}
	for _, test := range all {
		name := test.Package + " " + test.Test.Name()
		for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name, '/') {
			name = name[:i]
			parents[name] = true
		}
	}
	all = slices.DeleteFunc(all, func(t testjson.TestCase) bool { return parents[t.Package+" "+t.Test.Name()] })
	slices.SortFunc(all, func(a, b testjson.TestCase) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	rows := table.NewWriter()
	rows.AppendHeader(table.Row{"slowest tests", "package", "took"})
	for _, t := range all[:min(slowest, len(all))] {
		rows.AppendRow(table.Row{t.Test.Name(), testjson.RelativePackagePath(t.Package), t.Elapsed})
	}
	fmt.Fprintln(out, rows.Render())
}
