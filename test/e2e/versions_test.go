package e2e

import "testing"

// from are stories that are told where Kubernetes is of that version or later. Otherwise the log names them.
func from(t *testing.T, version string, all ...telling) []telling {
	t.Helper()
	return told(t, all, shared.Versions.HasKubernetes(version), "need Kubernetes "+version)
}

// olderThan are stories that are told where Kubernetes is older than that version.
func olderThan(t *testing.T, version string, all ...telling) []telling {
	t.Helper()
	return told(t, all, !shared.Versions.HasKubernetes(version), "are of Kubernetes before "+version)
}

func told(t *testing.T, all []telling, are bool, why string) []telling {
	t.Helper()
	if are {
		return all
	}
	for _, x := range all {
		t.Logf("not told on %s: %s: such stories %s", shared.Versions, x.name, why)
	}
	return nil
}

// Who asks an older Kubernetes for what it does not have is told so.
func notYetInKubernetes(s *story) {
	const since = "which Kubernetes has from 1.37 on"
	s.Cleanup(mayBeRefused()) // The node plugin asks as its node, in vain.
	s.create(pod("trusting", asks("trust=issuer,cluster-trust-bundle:corp")))
	s.says("trusting", "FailedMount", "trust source cluster-trust-bundle:corp: this API server does not serve ClusterTrustBundles", since)
	s.delete("trusting")
	s.must("apply", "--filename", "../../manifests/modes/pod-certificate/node.yaml")
	s.Cleanup(func() {
		s.configure("MAYFLY_SIGNER-")
		s.must("delete", "--filename", "../../manifests/modes/pod-certificate/node.yaml")
	})
	s.configure("MAYFLY_SIGNER=pod-certificate")
	s.create(pod("web"))
	s.says("web", "FailedMount", since)
	s.delete("web")
}
