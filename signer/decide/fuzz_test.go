package decide

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
)

// FuzzDecide has a node write whatever it likes into its request. What is approved is what the pod's volume asks for:
// the signing request has its names and extensions and nothing else.
func FuzzDecide(f *testing.F) {
	pod := web()
	honest := asks(f, pod)
	der, err := decode(honest.CSR)
	if err != nil {
		f.Fatal(err)
	}
	for _, volume := range []string{honest.Volume, ""} {
		f.Add(der, volume, honest.Object.Issuer.Name, "client auth", "seen", int64(honest.Duration), false)
		f.Add(der, volume, "root", "any", "solver", int64(0), true)
	}
	f.Fuzz(func(t *testing.T, csr []byte, volume, issuer, usage, label string, duration int64, isCA bool) {
		r, object := honest, *honest.Object
		object.Issuer.Name, object.IsCA, object.Labels = issuer, isCA, map[string]string{label: ""}
		object.Usages = append(object.Usages[:2:2], signer.Usage(usage))
		r.CSR = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
		r.Volume, r.Object, r.Duration = volume, &object, time.Duration(duration)
		d := Decide(r, pod, nodeA(), rules(), now())
		if d.Verdict != Approve {
			return
		}
		if issuer != "ca" || isCA || r.Duration != honest.Duration || usage != string(honest.Object.Usages[2]) ||
			label != "seen" && !strings.HasPrefix(label, "sidecar.example.org/") {
			t.Errorf("issuer %q, CA %t, label %q, usage %q, %s are approved", issuer, isCA, label, usage, r.Duration)
		}
		got, err := x509.ParseCertificateRequest(csr)
		if err != nil {
			t.Fatal(err)
		}
		wanted, err := Derive(d.Certificate)
		if err != nil || !bytes.Equal(wanted.RawSubject, got.RawSubject) || len(wanted.Extensions) != len(got.Extensions) ||
			strings.Join(got.DNSNames, ",") != "web.shop.svc" || len(got.URIs)+len(got.IPAddresses)+len(got.EmailAddresses) > 0 {
			t.Errorf("%+v (%v) is approved", got, err)
		}
	})
}
