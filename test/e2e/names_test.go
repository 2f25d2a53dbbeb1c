package e2e

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// unchanged starts pods that were written for cert-manager's drivers, whose names the driver has.
func unchanged(s *story) {
	s.Helper()
	old := pod("old", written("csi.cert-manager.io", map[string]string{
		"csi.cert-manager.io/issuer-name": "ca", "csi.cert-manager.io/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc", "csi.cert-manager.io/fs-group": "1000",
		"csi.cert-manager.io/pkcs12-enable": "true", "csi.cert-manager.io/pkcs12-password": "secret",
	}))
	mesh := pod("mesh", written("spiffe.csi.cert-manager.io", nil))
	s.start(old, mesh)
	if leaf := s.leaf("old"); !slices.Equal(leaf.DNSNames, []string{"old." + s.namespace + ".svc"}) {
		s.Errorf("the certificate is for %v", leaf.DNSNames)
	}
	if out, err := s.exec("old", "ls", "/tls"); err != nil || !containsAll(out, []string{"ca.crt", "keystore.p12", "tls.crt", "tls.key"}) {
		s.Errorf("%s (%v)", out, err)
	}
	if leaf := s.leaf("mesh"); len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/"+s.namespace+"/sa/default" {
		s.Errorf("the certificate is for %v", leaf.URIs)
	}
	s.delete("old")
	s.delete("mesh")
}

// configure sets variables of the driver's environment, or removes those that end in a dash, and waits until the driver has them.
func (s *story) configure(variables ...string) {
	s.Helper()
	ctx := context.WithoutCancel(s.Context())
	if _, err := shared.Kubectl(ctx, append([]string{"--namespace", mayfly, "set", "env", "daemonset/mayfly"}, variables...)...); err != nil {
		s.Fatal(err)
	}
	if err := shared.WaitMayfly(ctx); err != nil {
		s.Fatal(err)
	}
}

// written makes the volume one of another driver's name. Its pods wait and do nothing: the workload reads files that not every driver writes.
func written(driver string, attributes map[string]string) change {
	return func(spec *corev1.PodSpec) {
		csi := spec.Volumes[0].CSI
		csi.Driver, csi.VolumeAttributes = driver, attributes
		spec.Containers[0].Command = []string{"/bin/sleep", "1000000"}
	}
}
