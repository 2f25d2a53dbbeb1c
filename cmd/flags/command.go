package flags

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// A Command is a program that does a few things, and says what it is. Its help, manual page and completion are made
// from this and from the flags.
type Command struct {
	Name  string
	About string // A sentence.
	Verbs []Verb
}

// A Verb is one thing that a command does.
type Verb struct {
	Words string               // What it is called by: `mayfly node`. There may be several, with a space between them.
	About string               // What it does: a verb in the infinitive.
	Flags func() *flag.FlagSet // Its flags, set to their defaults.
	Do    func(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error
}

// Main runs the command in this process until it ends or a signal ends it.
func (c Command) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := c.Run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run runs the command with what it has of its process, and returns its exit code.
func (c Command) Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	return ExitCode(c.Name, c.run(ctx, args, getenv, stdout, stderr), stderr)
}

func (c Command) run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	for _, verb := range c.Verbs {
		if words := strings.Fields(verb.Words); len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return verb.Do(ctx, args[len(words):], getenv, stdout, stderr)
		}
	}
	switch {
	case len(args) == 0:
		return Errorf("a command is missing: %s %s", c.Name, c.known(", "+c.Name+" ", " or "+c.Name+" "))
	case args[0] == "version":
		_, err := io.WriteString(stdout, describe(stamped()))
		return err
	case args[0] == "man":
		_, err := io.WriteString(stdout, c.manual())
		return err
	case args[0] == "completion":
		script, err := c.completion(args[1:])
		if err == nil {
			_, err = io.WriteString(stdout, script)
		}
		return err
	case slices.Contains([]string{"help", "-h", "--help"}, args[0]):
		_, err := io.WriteString(stdout, c.usage())
		return err
	}
	return Errorf("unknown command %q: there are %s", args[0], c.known(", ", " and "))
}

// known lists the words that the command knows.
func (c Command) known(between, last string) string {
	return strings.Join(append(c.words(), "completion", "man", "version"), between) + last + "help"
}

// words returns what the verbs are called by.
func (c Command) words() (words []string) {
	for _, verb := range c.Verbs {
		words = append(words, verb.Words)
	}
	return words
}

// usage returns what help prints.
func (c Command) usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n", c.About)
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, verb := range c.Verbs {
		fmt.Fprintf(w, "  %s %s [flags]\t%s\n", c.Name, verb.Words, verb.About)
	}
	for _, rest := range others {
		fmt.Fprintf(w, "  %s %s\t%s\n", c.Name, rest.words, rest.about)
	}
	_ = w.Flush() // To memory.
	fmt.Fprintf(&b, "\n-h after a command lists its flags.\n")
	return b.String()
}

// others are what every command does besides its verbs.
var others = []struct{ words, about string }{
	{"completion bash|zsh|fish", "print a shell's completion of commands and flags"},
	{"man", "print the manual page"},
	{"version", "print the version, its commit and date, and that of Go"},
}
