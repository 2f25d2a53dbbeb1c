package podcertificate

import (
	"testing"

	"github.com/mayfly-csi/mayfly/signer/chain"
)

// However many certificates are in an answer, a limited number of signatures is checked. Those beyond it are passed on.
func TestAnAnswerOfManyRoots(t *testing.T) {
	const n = chain.MaxChecks + 10
	all := chain.BundleOf(issue(t, "leaf", 1, nil, nil).certificate)
	for i := range n {
		all = append(all, chain.Of(issue(t, "root", int64(i+2), nil, nil).certificate))
	}
	issued := split(string(all.Encode()))
	sent, err := chain.Parse(issued.Chain)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := chain.Parse(issued.CA)
	if err != nil {
		t.Fatal(err)
	}
	if len(ca) != chain.MaxChecks || len(sent) != 1+n-chain.MaxChecks {
		t.Errorf("%d are CA certificates, %d are sent", len(ca), len(sent))
	}
}
