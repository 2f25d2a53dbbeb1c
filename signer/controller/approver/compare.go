package approver

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/proof"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// against is all in which the request differs from what the volume's node asks for.
func against(cr *cmapi.CertificateRequest, v spec.Spec) problem.List {
	problems := object(cr, v)
	der, err := decode(cr.Spec.Request)
	if err != nil {
		return append(problems, fmt.Errorf("the signing request is not understood: %w", err))
	}
	return append(problems, proof.CSR(der, v)...)
}

// decode reads one signing request in PEM, written as node plugins write it.
func decode(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || !bytes.Equal(pem.EncodeToMemory(block), text) || len(block.Headers) > 0 {
		return nil, errors.New("it is not one CERTIFICATE REQUEST in PEM and nothing else")
	}
	return block.Bytes, nil
}

// object compares what the request says outside of the signing request.
func object(cr *cmapi.CertificateRequest, v spec.Spec) (problems problem.List) {
	differs := func(what string, asked, wants any) {
		problems = append(problems, proof.Difference(what, asked, wants))
	}
	if issuer := (signer.Issuer{Name: cr.Spec.IssuerRef.Name, Kind: cr.Spec.IssuerRef.Kind, Group: cr.Spec.IssuerRef.Group}); issuer != v.Issuer {
		differs("issuer", title(issuer), title(v.Issuer))
	}
	switch {
	case cr.Spec.Duration == nil:
		differs("duration", "none", v.Duration)
	case cr.Spec.Duration.Duration != v.Duration:
		differs("duration", cr.Spec.Duration.Duration, v.Duration)
	}
	if asked, wants := usages(cr.Spec.Usages), usages(v.Usages); !slices.Equal(asked, wants) {
		differs("usages", proof.List(asked), proof.List(wants))
	}
	if cr.Spec.IsCA != v.IsCA {
		differs("CA", cr.Spec.IsCA, v.IsCA)
	}
	if !maps.Equal(cr.Annotations, v.Annotations) {
		differs("annotations", proof.List(pairs(cr.Annotations)), proof.List(pairs(v.Annotations)))
	}
	return problems
}

func title(i signer.Issuer) string { return fmt.Sprintf("%q %q of %q", i.Kind, i.Name, i.Group) }

func usages[U ~string](all []U) []string {
	names := make([]string, len(all))
	for i, u := range all {
		names[i] = string(u)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func pairs(all map[string]string) (pairs []string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, key+"="+all[key])
	}
	return pairs
}
