// Package istio has the library of Istio's agent read the files of a volume and take note of renewals: the example of manifests/examples/istio.yaml.
// It is a module of its own, for what Istio depends on.
package istio

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/cache"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/test/example"
)

// The agent takes the pair and the roots from the files, and says so to Envoy whenever they change.
func TestAgentReadsTheFilesAndTheirRenewals(t *testing.T) {
	n, pod := example.NewNode(t), example.Read(t, "istio").Pods[0]
	volume := n.Publish(t, pod, workloadCerts(t, pod.Spec))
	roots := n.Roots(t)
	mount(t, volume, security.WorkloadIdentityCredentialsPath)
	if !security.CheckWorkloadCertificate(security.WorkloadIdentityCertChainPath, security.WorkloadIdentityKeyPath, security.WorkloadIdentityRootCertPath) {
		t.Fatal("Istio's agent does not find its files")
	}
	// As the agent does that finds them (its initSdsServer).
	agent, err := cache.NewSecretManagerClient(nil, &security.Options{
		FileMountedCerts:     true,
		CertChainFilePath:    security.WorkloadIdentityCertChainPath,
		KeyFilePath:          security.WorkloadIdentityKeyPath,
		RootCertFilePath:     security.WorkloadIdentityRootCertPath,
		FileDebounceDuration: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	changed := make(chan string, 100)
	agent.RegisterSecretHandler(func(name string) { changed <- name })
	var before *x509.Certificate
	for range 3 {
		example.Until(t, "the agent to have the next certificate", func() error {
			now, err := secret(agent, roots)
			if err == nil && now.Equal(before) {
				select { // It is asked again when it says so, as Envoy's side does.
				case <-changed:
				case <-t.Context().Done():
				case <-time.After(time.Minute):
					t.Fatal("the agent says of no change")
				}
				return errors.New("it has the one before")
			}
			if err == nil {
				before = now
			}
			return err
		})
		if got := before.URIs; len(got) != 1 || got[0].String() != "spiffe://cluster.local/ns/default/sa/orders" {
			t.Errorf("the certificate is of %v", got)
		}
	}
}

// secret is the certificate that the agent gives to Envoy, which must verify with the roots that it gives.
func secret(agent *cache.SecretManagerClient, roots *x509.CertPool) (*x509.Certificate, error) {
	pair, err := agent.GenerateSecret(security.WorkloadKeyCertResourceName)
	if err != nil {
		return nil, err
	}
	trust, err := agent.GenerateSecret(security.RootCertReqResourceName)
	if err != nil {
		return nil, err
	}
	if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(trust.RootCert) || !pool.Equal(roots) {
		return nil, errors.New("the roots are not those of the issuer")
	}
	c, err := tls.X509KeyPair(pair.CertificateChain, pair.PrivateKey)
	if err != nil {
		return nil, err
	}
	_, err = c.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return c.Leaf, err
}

// The template of Istio's injection is laid over the pod as a strategic merge patch (its pkg/kube/inject, applyOverlayYAML): the volume stays.
func TestTheVolumeIsKeptByTheInjection(t *testing.T) {
	pod := example.Read(t, "istio").Pods[0]
	before, err := yaml.Marshal(corev1.Pod{Spec: pod.Spec})
	if err != nil {
		t.Fatal(err)
	}
	before, err = yaml.YAMLToJSON(before)
	if err != nil {
		t.Fatal(err)
	}
	template := []byte(`{"spec": {"volumes": [{"emptyDir": null, "name": "workload-certs"}, {"emptyDir": null, "name": "workload-socket"}]}}`)
	patched, err := strategicpatch.StrategicMergePatch(before, template, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	var after corev1.Pod
	if err := yaml.UnmarshalStrict(patched, &after); err != nil {
		t.Fatal(err)
	}
	if v := workloadCerts(t, after.Spec); v.EmptyDir != nil {
		t.Error("the volume is an emptyDir, too")
	}
}

func workloadCerts(t *testing.T, spec corev1.PodSpec) corev1.Volume {
	t.Helper()
	i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == "workload-certs" && v.CSI != nil })
	if i < 0 {
		t.Fatal("the pod has no CSI volume workload-certs")
	}
	return spec.Volumes[i]
}

// mount shows the volume where the agent looks for it, below a directory that is the working directory from then on: Istio's paths are relative.
func mount(t *testing.T, volume, path string) {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(volume, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	t.Chdir(root)
}
