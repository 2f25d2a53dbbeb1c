package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// byKubectl installs Mayfly by kubectl in mode pod-certificate, leaves the mode and comes back, and removes Mayfly. The
// controller's CA is there all the time, and signs again, until its namespace is deleted by the command for that.
func (s *story) byKubectl() {
	s.Helper()
	s.Cleanup(func() {
		if s.Failed() {
			_, _ = shared.Shell(context.Background(), checkout,
				"kubectl delete --ignore-not-found -f manifests/modes/pod-certificate/ -f manifests/controller/ -f manifests/")
		}
	})
	s.types(checkout, documentedBlocks(s.T, installing, "byKubectl", 1)[0])
	s.documented(s.Context(), toPodCertificates)
	s.start(pod("mesh", ownCA(brief()...), idle))
	ca := s.ownCA()
	s.signed(ca, "mesh")
	s.delete("mesh")

	s.documented(s.Context(), fromPodCertificates)
	s.keeps(ca)
	s.documented(s.Context(), toPodCertificates)
	s.start(pod("again", ownCA(brief()...), idle))
	s.keeps(ca)
	s.signed(ca, "again")
	s.delete("again")

	s.documented(s.Context(), fromPodCertificates)
	s.uninstalledByKubectl()
	s.keeps(ca)
	s.keysDeleted()
}

// ownCA returns the Secret of the controller's own CA.
func (s *story) ownCA() *corev1.Secret {
	s.Helper()
	ca, err := shared.Client.CoreV1().Secrets(caNamespace).Get(s.Context(), "mayfly-ca", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return ca
}

// keeps demands that the controller's own CA is that one, and has its key.
func (s *story) keeps(ca *corev1.Secret) {
	s.Helper()
	now := s.ownCA()
	if now.UID != ca.UID || string(now.Data[corev1.TLSPrivateKeyKey]) != string(ca.Data[corev1.TLSPrivateKeyKey]) {
		s.Errorf("Secret %s is another than before", ca.Name)
	}
}

// signed demands that a pod's certificate is signed by that CA.
func (s *story) signed(ca *corev1.Secret, pod string) {
	s.Helper()
	block, _ := pem.Decode(ca.Data[corev1.TLSCertKey])
	if block == nil {
		s.Fatalf("Secret %s has no certificate", ca.Name)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		s.Fatal(err)
	}
	defer func(others *x509.CertPool) { s.roots = others }(s.roots)
	s.roots = x509.NewCertPool()
	s.roots.AddCert(root)
	s.leaf(pod)
}

// keysDeleted types the command that deletes the keys of the controller's CAs.
func (s *story) keysDeleted() {
	s.Helper()
	s.types(checkout, documentedBlocks(s.T, podCertificate, "keysDeleted", 1)[0])
	_, err := shared.Client.CoreV1().Secrets(caNamespace).Get(s.Context(), "mayfly-ca", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		s.Errorf("the key of the controller's CA is not deleted: %v", err)
	}
}
