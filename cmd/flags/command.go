package flags

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// A Command is a program that does a few things, and says what it is.
type Command struct {
	Name  string
	Usage string // What help prints.
	Verbs []Verb
}

// A Verb is one thing that a command does.
type Verb struct {
	Words string // What it is called by: `mayfly node`. There may be several, with a space between them.
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
		_, err := fmt.Fprintln(stdout, Version())
		return err
	case slices.Contains([]string{"help", "-h", "--help"}, args[0]):
		_, err := io.WriteString(stdout, c.Usage)
		return err
	}
	return Errorf("unknown command %q: there are %s", args[0], c.known(", ", " and "))
}

// known lists the words that the command knows.
func (c Command) known(between, last string) string {
	var words []string
	for _, verb := range c.Verbs {
		words = append(words, verb.Words)
	}
	return strings.Join(append(words, "version"), between) + last + "help"
}
