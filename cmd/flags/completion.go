package flags

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// completion returns the script by which a shell completes commands and flags.
func (c Command) completion(args []string) (string, error) {
	switch {
	case slices.Equal(args, []string{"bash"}):
		return c.bash(), nil
	case slices.Equal(args, []string{"zsh"}): // It runs bash's scripts.
		return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + c.bash(), nil
	case slices.Equal(args, []string{"fish"}):
		return c.fish(), nil
	}
	return "", Errorf("a shell is missing: %s completion bash, zsh or fish", c.Name)
}

// next returns the words that may follow others of the command line, by those: "" is its begin.
func (c Command) next() map[string][]string {
	next := map[string][]string{"": {"man", "version", "help"}, "completion": {"bash", "zsh", "fish"}}
	for _, words := range append([]string{"completion"}, c.words()...) {
		before := ""
		for _, word := range strings.Fields(words) {
			if !slices.Contains(next[before], word) {
				next[before] = append(next[before], word)
			}
			before = strings.TrimSpace(before + " " + word)
		}
	}
	for _, verb := range c.Verbs {
		verb.Flags().VisitAll(func(f *flag.Flag) { next[verb.Words] = append(next[verb.Words], "--"+f.Name) })
	}
	return next
}

// bash returns the script of bash.
func (c Command) bash() string {
	function := "_" + strings.ReplaceAll(c.Name, "-", "_")
	var b strings.Builder
	fmt.Fprintf(&b, "%s() {\n\tlocal next=\n\tcase \"${COMP_WORDS[*]:1:COMP_CWORD-1} \" in\n", function)
	next := c.next()
	for _, before := range slices.Sorted(maps.Keys(next)) {
		more := ""
		if slices.Contains(c.words(), before) { // Flags come after others.
			more = "*"
		}
		fmt.Fprintf(&b, "\t%q%s) next=%q ;;\n", before+" ", more, strings.Join(next[before], " "))
	}
	fmt.Fprintf(&b, "\tesac\n\tCOMPREPLY=($(compgen -W \"$next\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"+
		"complete -o default -F %s %s\n", function, c.Name)
	return b.String()
}

// fish returns the script of fish.
func (c Command) fish() string {
	var b strings.Builder
	next := c.next()
	for _, before := range slices.Sorted(maps.Keys(next)) {
		if slices.Contains(c.words(), before) {
			continue
		}
		condition := "__fish_use_subcommand"
		if before != "" {
			condition = "__fish_seen_subcommand_from " + before[strings.LastIndex(before, " ")+1:]
		}
		fmt.Fprintf(&b, "complete -c %s -f -n '%s' -a '%s'\n", c.Name, condition, strings.Join(next[before], " "))
	}
	for _, verb := range c.Verbs {
		last := verb.Words[strings.LastIndex(verb.Words, " ")+1:]
		first, _, _ := strings.Cut(verb.Words, " ")
		verb.Flags().VisitAll(func(f *flag.Flag) {
			const seen = "__fish_seen_subcommand_from "
			fmt.Fprintf(&b, "complete -c %s -n '%s%s; and %s%s' -l %s -d '%s'\n",
				c.Name, seen, first, seen, last, f.Name, strings.ReplaceAll(f.Usage, "'", `\'`))
		})
	}
	return b.String()
}
