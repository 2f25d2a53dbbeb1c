// Command mayfly is the node plugin: `mayfly node` runs on every node, as a DaemonSet.
package main

import "github.com/mayfly-csi/mayfly/cmd/flags"

func main() { mayfly().Main() }

func mayfly() flags.Command {
	return flags.Command{
		Name:  "mayfly",
		About: "Mayfly gives every pod that asks for it a short-lived certificate, and rotates it.",
		Verbs: []flags.Verb{{Words: "node", About: "run the node plugin", Flags: new(options).flags, Do: node}},
	}
}
