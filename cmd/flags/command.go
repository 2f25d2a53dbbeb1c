package flags

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// A Command is a program that does one thing, and says what it is.
type Command struct {
	Name  string
	Usage string // What help prints.
	Verb  string // The word for what it does: `mayfly node`.
	Do    func(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error
}

// Main runs the command in this process until it ends or a signal ends it.
func (c Command) Main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := c.Run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run is the command with what it has of its process; it returns its exit code.
func (c Command) Run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	word := ""
	if len(args) > 0 {
		word, args = args[0], args[1:]
	}
	var err error
	switch word {
	case c.Verb:
		err = c.Do(ctx, args, getenv, stdout, stderr)
	case "version":
		_, err = fmt.Fprintln(stdout, Version())
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, c.Usage)
	case "":
		err = Error{Err: errors.New("a command is missing: " + c.Name + " " + c.Verb + ", " + c.Name + " version or " + c.Name + " help")}
	default:
		err = Errorf("unknown command %q: there are %s, version and help", word, c.Verb)
	}
	return ExitCode(c.Name, err, stderr)
}
