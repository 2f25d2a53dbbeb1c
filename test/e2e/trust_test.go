package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

// CA certificates of a ClusterTrustBundle and a ConfigMap, which trust-manager writes, reach a running pod, which keeps its certificate. The right to read
// ConfigMaps comes when the pod has said that it is missing.
func trustPushed(s *story) {
	var roots []string
	for range 4 {
		crt, _, err := cluster.NewCA()
		if err != nil {
			s.Fatal(err)
		}
		roots = append(roots, string(crt))
	}
	bundles, configMaps := shared.Client.CertificatesV1().ClusterTrustBundles(), shared.Client.CoreV1().ConfigMaps(s.namespace)
	bundle := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Spec: certificatesv1.ClusterTrustBundleSpec{TrustBundle: roots[0]}}
	if _, err := bundles.Create(s.Context(), bundle, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := bundles.Delete(context.Background(), s.namespace, metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	})
	corp := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "corp"}, Data: map[string]string{"root.pem": roots[1]}}
	if _, err := configMaps.Create(s.Context(), corp, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.trustManager("corp-ca", `{"sources": [{"configMap": {"name": "corp", "key": "root.pem"}}],
		"target": {"configMap": {"key": "ca.crt"}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "`+s.namespace+`"}}}}`)
	s.create(pod("web", asks("trust=issuer,cluster-trust-bundle:"+s.namespace+",config-map:corp-ca/ca.crt")))
	s.says("web", "FailedMount", `trust source config-map:corp-ca/ca.crt: configmaps "corp-ca" is forbidden`, "manifests/options/config-maps.yaml grants it")
	s.option("config-maps")
	s.ready("web")
	s.trusts("web", roots[0], roots[1])
	before := s.leaf("web")
	for _, change := range []struct {
		to   string
		make func(ctx context.Context) error
	}{
		{roots[2] + roots[1], func(context.Context) error {
			_, err := s.kubectl("patch", "clustertrustbundle", s.namespace, "--type=merge", "--patch", fmt.Sprintf(`{"spec": {"trustBundle": %q}}`, roots[2]))
			return err
		}},
		{roots[2] + roots[3], func(ctx context.Context) error {
			corp.Data["root.pem"] = roots[3]
			_, err := configMaps.Update(ctx, corp, metav1.UpdateOptions{})
			return err
		}},
	} {
		if err := change.make(s.Context()); err != nil {
			s.Fatal(err)
		}
		s.trusts("web", change.to)
	}
	s.must("delete", "bundle", "corp-ca")
	s.says("web", "TrustBundleKept", "ConfigMap "+s.namespace+"/corp-ca not found; the pod keeps the CA certificates that it has from config-map:corp-ca/ca.crt")
	s.trusts("web", roots[2], roots[3])
	if !s.leaf("web").Equal(before) || s.untroubled("web") != 1 {
		s.Error("the pod got another certificate")
	}
	s.delete("web")
}

// trustManager runs trust-manager until the story ends, with the story's namespace for sources and a Bundle.
func (s *story) trustManager(name, spec string) {
	s.Helper()
	path, definition, err := cluster.TrustManager(s.Context(), s.Logf)
	if err != nil {
		s.Fatal(err)
	}
	s.define(definition, "trust-manager.yaml")
	crt, key, err := cluster.NewCA()
	dir := s.TempDir()
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "tls.crt"), crt, 0o600), os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600))
	file := filepath.Join(dir, "bundle.json")
	bundle := fmt.Sprintf(`{"apiVersion": "trust.cert-manager.io/v1alpha1", "kind": "Bundle", "metadata": {"name": %q}, "spec": %s}`, name, spec)
	if err := errors.Join(err, os.WriteFile(file, []byte(bundle), 0o600)); err != nil {
		s.Fatal(err)
	}
	s.runController(path, "system:serviceaccount:cert-manager:trust-manager", "--trust-namespace="+s.namespace, "--leader-elect=false",
		"--metrics-port=0", "--readiness-probe-port=0", "--webhook-host=127.0.0.1", "--webhook-port=6444", "--webhook-certificate-dir="+dir)
	s.must("apply", "--filename", file)
	s.must("wait", "--for=condition=Synced", "bundle/"+name, "--timeout=2m")
}

// trusts waits until the pod has these CA certificates, after its issuer's.
func (s *story) trusts(pod string, roots ...string) {
	s.Helper()
	s.until("the CA certificates of pod "+pod, func(context.Context) error {
		text, err := s.exec(pod, "cat", "/tls/ca.crt")
		if err == nil && (!strings.HasSuffix(text, strings.Join(roots, "")) || strings.Count(text, "BEGIN") != 3) {
			err = fmt.Errorf("it has %s", text)
		}
		return err
	})
}
