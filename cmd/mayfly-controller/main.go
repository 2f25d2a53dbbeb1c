// Command mayfly-controller is what a cluster has once: `mayfly-controller run` decides on the requests of the node
// plugins, `mayfly-controller policy check` tells what other policies would decide, and `mayfly-controller admission
// check` whether the API server keeps everyone else from it.
package main

import "github.com/mayfly-csi/mayfly/cmd/flags"

func main() { controller().Main() }

func controller() flags.Command {
	return flags.Command{
		Name:  "mayfly-controller",
		About: "Mayfly's controller approves the certificate requests that match the pod for which a node plugin asks.",
		Verbs: []flags.Verb{
			{Words: "run", About: "run the controller", Flags: new(options).flags, Do: control},
			{
				Words: "policy check", Flags: new(checkOptions).flags, Do: check,
				About: "list which volumes of running pods a change of CertificatePolicies would deny",
			},
			{
				Words: "admission check", Flags: new(admissionOptions).flags, Do: checkAdmission,
				About: "list the admission policies that are not in force; exit code 1 if others may decide, too",
			},
		},
	}
}
