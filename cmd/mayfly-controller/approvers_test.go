package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/controller/rights"
)

func TestWhoElseMayApprove(t *testing.T) {
	const controller = "system:serviceaccount:mayfly-system:mayfly-controller"
	ours := rights.Approver{Subject: "User " + controller, Signers: []string{"*"}, Namespaces: []string{"*"}}
	root := rights.Approver{Subject: "Group system:masters", Signers: []string{"*"}, Namespaces: []string{"*"}, By: []string{"ClusterRoleBinding cluster-admin"}, Administrator: true}
	other := rights.Approver{Subject: "User bob", Signers: []string{"issuers.cert-manager.io/*"}, Namespaces: []string{"a", "b"}, By: []string{"ClusterRoleBinding approve"}}
	for _, row := range []struct {
		all  []rights.Approver
		kept bool
		out  string
		err  string
	}{
		{[]rights.Approver{root, ours}, false, "Nobody but mayfly-controller and administrators may approve", "<nil>"},
		{[]rights.Approver{ours, other}, false, "User bob  issuers.cert-manager.io/*  a,b         ClusterRoleBinding approve", "1 besides mayfly-controller may approve whatever a pod asks for with its own token: "},
		{[]rights.Approver{ours, other}, true, "The policy mayfly-pod-decisions keeps them from", "<nil>"},
		{[]rights.Approver{root}, false, "Group system:masters  *        *           ClusterRoleBinding cluster-admin  (an administrator)", "<nil>"},
	} {
		var out bytes.Buffer
		err := report(&out, row.all, controller, row.kept)
		if !strings.HasPrefix(fmt.Sprint(err), row.err) || !strings.Contains(out.String(), row.out) || strings.Contains(out.String(), controller) {
			t.Errorf("%v, %v: %v\n%s", row.all, row.kept, err, &out)
		}
	}
}
