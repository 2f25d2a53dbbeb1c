package flags

import (
	"flag"
	"fmt"
	"strings"
)

// manual returns the manual page, in the macros of man(7).
func (c Command) manual() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`.TH %s 8 "" "Mayfly %s"`, strings.ToUpper(roff(c.Name)), roff(Version()))
	line(".SH NAME\n%s \\- %s", roff(c.Name), roff(strings.TrimSuffix(c.About, ".")))
	line(".SH SYNOPSIS")
	for _, verb := range c.Verbs {
		line(".B %s %s\n[flags]\n.br", roff(c.Name), roff(verb.Words))
	}
	for _, rest := range others {
		line(".B %s %s\n.br", roff(c.Name), roff(rest.words))
	}
	line(".SH DESCRIPTION\nEach flag has an environment variable, in parentheses. The flag wins.")
	for _, verb := range c.Verbs {
		line(".SS %s %s\nTo %s:", roff(c.Name), roff(verb.Words), roff(verb.About))
		verb.Flags().VisitAll(func(f *flag.Flag) {
			line(".TP\n.B %s\n(%s)\n%s.", roff("--"+f.Name), roff(Variable(f.Name)), roff(f.Usage))
			if f.DefValue != "" {
				line("Default: %s", roff(f.DefValue))
			}
		})
	}
	line(".SH EXIT STATUS\n0 after a stop by SIGTERM or SIGINT, 2 for an error in the command line, 1 for any other.")
	return b.String()
}

// roff returns a text of one line as troff takes it.
func roff(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "\n", " ").Replace(text)
}
