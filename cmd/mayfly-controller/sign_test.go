package main

import (
	"errors"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// away is a mapper whose API server does not answer.
type away struct{ meta.RESTMapper }

var errAway = errors.New("away")

func (away) RESTMapping(schema.GroupKind, ...string) (*meta.RESTMapping, error) { return nil, errAway }

// TestServed demands that an API server without what is to be signed, or where the CAs are published, is named.
func TestServed(t *testing.T) {
	with := func(version schema.GroupVersion, kinds ...string) meta.RESTMapper {
		mapper := meta.NewDefaultRESTMapper(nil)
		for _, kind := range kinds {
			mapper.Add(version.WithKind(kind), meta.RESTScopeRoot)
		}
		return mapper
	}
	v1, v1beta1 := certificatesv1.SchemeGroupVersion, schema.GroupVersion{Group: certificatesv1.GroupName, Version: "v1beta1"}
	for name, row := range map[string]struct {
		mapper meta.RESTMapper
		want   string
	}{
		"all":        {with(v1, "PodCertificateRequest", "ClusterTrustBundle"), ""},
		"none":       {with(v1), "--pod-certificates needs PodCertificateRequests of certificates.k8s.io/v1, which Kubernetes has from 1.37 on"},
		"beta":       {with(v1beta1, "PodCertificateRequest", "ClusterTrustBundle"), "needs PodCertificateRequests"},
		"no bundles": {with(v1, "PodCertificateRequest"), "needs ClusterTrustBundles"},
		"no answer":  {away{}, "ask the API server whether it has PodCertificateRequests: away"},
	} {
		err := served(row.mapper)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
