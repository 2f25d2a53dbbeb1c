package podcertificaterequests

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A signer's answer is handed on as far as the API server takes it; what peers would refuse is not.
func TestTheChainOfAnAnswer(t *testing.T) {
	pod := web()
	pcr := asks(t, pod)
	d := newFixture(t, interceptor.Funcs{}, pod, pcr)
	v, err := spec.Parse(volume(pod), spec.Defaults{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := d.sign(t.Context(), pcr, decide.Decision{Certificate: v})
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.sign(t.Context(), asks(t, pod), decide.Decision{Certificate: v})
	if err != nil {
		t.Fatal(err)
	}
	leaf, root := string(good.Chain), string(good.CA)
	damaged := strings.Replace(root, "-----END CERTIFICATE-----", "-----END CERTIFICATE----", 1)
	for _, row := range []struct{ name, chain, ca, want, problem string }{
		{"the CA comes along", leaf, root, leaf + root, ""},
		{"the CA is damaged", leaf, damaged, leaf, ""},
		{"no line break between two", strings.TrimSpace(leaf) + root, "", leaf + root, ""},
		{"the chain is damaged", leaf + damaged, root, "", "read the certificate chain: PEM block 2: its END line is missing or damaged"},
		{"another's certificate", string(other.Chain), root, "", "the certificate is for another key than ours"},
		{"another's intermediate", leaf + string(other.Chain), "", "", "the certificate chain is broken"},
	} {
		issued := good
		issued.Chain, issued.CA = []byte(row.chain), []byte(row.ca)
		status, _, err := d.Signer.status(pcr, issued)
		if status.CertificateChain != row.want || (err == nil) != (row.problem == "") ||
			err != nil && !strings.Contains(err.Error(), row.problem) {
			t.Errorf("%s: %v, want %q; the chain is\n%s", row.name, err, row.problem, status.CertificateChain)
		}
	}
	if !strings.Contains(d.log.String(), "CA certificates of an issuer are left out") {
		t.Errorf("the log does not say so:\n%s", &d.log)
	}
}
