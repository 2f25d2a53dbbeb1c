// Command mayfly-controller is what a cluster has once: `mayfly-controller run` decides on the requests of the node
// plugins, `mayfly-controller policy check` tells what other policies would decide, and `mayfly-controller admission
// check` whether the API server keeps everyone else from it.
package main

import "github.com/mayfly-csi/mayfly/cmd/flags"

const usage = `Mayfly's controller approves the certificate requests that match the pod for which a node plugin asks.

Usage:
  mayfly-controller run [flags]            run the controller; mayfly-controller run -h lists its flags
  mayfly-controller policy check [flags]   list which volumes of running pods a change of CertificatePolicies would deny
  mayfly-controller admission check [flags]
                                           list the admission policies that are not in force; exit code 1 if others may decide, too
  mayfly-controller version                print the version
`

func main() { controller().Main() }

func controller() flags.Command {
	return flags.Command{Name: "mayfly-controller", Usage: usage, Verbs: []flags.Verb{
		{Words: "run", Do: control}, {Words: "policy check", Do: check}, {Words: "admission check", Do: checkAdmission},
	}}
}
