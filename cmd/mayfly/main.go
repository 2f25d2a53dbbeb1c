// Command mayfly is the node plugin: `mayfly node` runs on every node, as a DaemonSet.
package main

import "github.com/mayfly-csi/mayfly/cmd/flags"

const usage = `Mayfly gives every pod that asks for it a short-lived certificate, and rotates it.

Usage:
  mayfly node [flags]   run the node plugin; mayfly node -h lists its flags
  mayfly version        print the version
`

func main() { mayfly().Main() }

func mayfly() flags.Command {
	return flags.Command{Name: "mayfly", Usage: usage, Verbs: []flags.Verb{{Words: "node", Do: node}}}
}
