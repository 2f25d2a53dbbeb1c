package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/test/forge"
)

// caNamespace has the Secrets of the controller's CAs. It comes with the mode, and stays.
const caNamespace = "mayfly-ca"

// byPodCertificates runs node plugin and controller in mode pod-certificate until the story ends.
func (s *story) byPodCertificates() {
	s.Helper()
	s.controlled()
	s.Cleanup(func() {
		ctx := context.Background()
		s.documented(ctx, fromPodCertificates)
		for _, what := range [][]string{{"clustertrustbundle", "csi.mayfly.dev:volume:ca"}, {"namespace", caNamespace}} {
			if _, err := shared.Kubectl(ctx, append([]string{"delete", "--ignore-not-found"}, what...)...); err != nil {
				s.Error(err)
			}
		}
	})
	s.documented(s.Context(), toPodCertificates)
	s.controllers(2)
	s.option("read-pods")
	s.configure("MAYFLY_WATCH_PODS=true")
	s.Cleanup(func() { s.configure("MAYFLY_WATCH_PODS-") })
}

// The sections of docs/pod-certificates.md that have the commands.
const (
	toPodCertificates   = "\n## Install\n"
	fromPodCertificates = "\n### Leave the mode\n"
)

// documented runs the commands of a section of docs/pod-certificates.md.
func (s *story) documented(ctx context.Context, section string) {
	s.Helper()
	defer mayBeRefused()() // A controller of before may still end when its roles go.
	if err := runDocumented(ctx, filepath.Join(checkout, podCertificate), section, 5); err != nil {
		s.Error(err)
	}
}

// runDocumented runs the commands of kubectl of a section's first block that has some, which are so many at least.
func runDocumented(ctx context.Context, document, section string, least int) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(text), section)
	_, after, _ = strings.Cut(after, "\n```sh\nkubectl ")
	block, _, _ := strings.Cut("kubectl "+after, "```")
	ran := 0
	for line := range strings.Lines(strings.ReplaceAll(block, " manifests/", " ../../manifests/")) {
		args := strings.Fields(line)
		if len(args) < 2 || args[0] != "kubectl" {
			return fmt.Errorf("%s: %q is no command of kubectl", document, line)
		}
		if _, err := shared.Kubectl(ctx, args[1:]...); err != nil {
			return err
		}
		ran++
	}
	if ran < least {
		return fmt.Errorf("%s: %d commands in %q", document, ran, section)
	}
	return nil
}

// leavesTheMode demands that a pod keeps its certificate on the way back, and has its next one by the usual rights.
func (s *story) leavesTheMode(name string) {
	s.Helper()
	before := s.leaf(name)
	s.documented(s.Context(), fromPodCertificates)
	s.controllers(2)
	s.configure("MAYFLY_WATCH_PODS=true") // Waits for the node plugins.
	if !s.leaf(name).Equal(before) {
		s.Error("the certificate has changed on the way back")
	}
	s.renewedByWish(name)
}

// ownCA makes the volume one of the controller's own CA, which its ClusterTrustBundle tells.
func ownCA(attributes ...string) change {
	return own(append([]string{"issuer-name=mayfly-ca", "issuer-kind=CA", "issuer-group=csi.mayfly.dev"}, attributes...)...)
}

// brief has a certificate of an hour, the shortest in this mode.
func brief(attributes ...string) []string { return append([]string{"duration=1h"}, attributes...) }

// podCertificates is a cluster whose node plugins have no right that their kubelets do not have.
func podCertificates(s *story) {
	s.byPodCertificates()
	s.powerless()
	s.start(pod("web", own(brief()...)), pod("mesh", ownCA(brief("trust=cluster-trust-bundle:csi.mayfly.dev:volume:ca,issuer")...), idle))
	s.renewedByWish("web")
	s.untroubled("web")
	if leaf := s.leaf("web"); !slices.Equal(leaf.DNSNames, []string{"web." + s.namespace + ".svc"}) {
		s.Errorf("the certificate is for %v", leaf.DNSNames)
	}
	s.ofOwnCA("mesh")
	s.create(pod("hasty", own("duration=30m")))
	s.says("hasty", "FailedMount", "pod-certificate", "csi.mayfly.dev/duration")
	s.delete("hasty")
	s.create(pod("greedy", own("dns-names=web.test", "duration=1h")))
	s.says("greedy", "FailedMount", "request denied: PodCertificateRequest "+s.namespace+"/greedy-", `NotAllowed: DNS name "web.test" is not the pod's`)
	s.allowed("greedy", "web.test")
	s.delete("greedy")
	s.until("the requests of cert-manager to be gone", func(ctx context.Context) error {
		requests, err := shared.CertManager.CertmanagerV1().CertificateRequests(s.namespace).List(ctx, metav1.ListOptions{})
		for _, cr := range requests.Items {
			if !strings.HasPrefix(cr.Name, "web-") { // It rotates.
				err = errors.Join(err, errors.New(cr.Name+" is there"))
			}
		}
		return err
	})
	s.nativeVolumes()
	s.leavesTheMode("web")
}

// ofOwnCA demands that a pod's certificate is of the controller's own CA, which its bundle and its volume tell.
func (s *story) ofOwnCA(name string) {
	s.Helper()
	bundle, err := shared.Client.CertificatesV1().ClusterTrustBundles().Get(s.Context(), "csi.mayfly.dev:volume:ca", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	defer func(others *x509.CertPool) { s.roots = others }(s.roots)
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM([]byte(bundle.Spec.TrustBundle))
	leaf := s.leaf(name)
	if want := "spiffe://cluster.local/ns/" + s.namespace + "/sa/default"; len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
		s.Errorf("the certificate is for %v, not %s", leaf.URIs, want)
	}
	roots, err := s.exec(name, "cat", "/tls/ca.crt")
	if err != nil || strings.Count(roots, "BEGIN CERTIFICATE") != 1 || !strings.Contains(bundle.Spec.TrustBundle, strings.TrimSpace(roots)) {
		s.Errorf("ca.crt is %s, the bundle %s (%v)", roots, bundle.Spec.TrustBundle, err)
	}
	chain, err := s.exec(name, "cat", "/tls/tls.crt")
	if err != nil || strings.Count(chain, "BEGIN CERTIFICATE") != 1 {
		s.Errorf("tls.crt has a root: %s (%v)", chain, err)
	}
}

// powerless demands that the node plugin may create nothing that makes a certificate.
func (s *story) powerless() {
	s.Helper()
	text, err := shared.Kubectl(s.Context(), "auth", "can-i", "--list", "--as=system:serviceaccount:"+mayfly+":mayfly")
	if err != nil {
		s.Fatal(err)
	}
	if !strings.Contains(text, "impersonate-on:associated-node:create") {
		s.Errorf("the node plugin can't be its node:\n%s", text)
	}
	for line := range strings.Lines(text) {
		resource, _, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(resource, ".")
		verbs := strings.Fields(strings.Trim(line[strings.LastIndex(line, "[")+1:], "]\n"))
		if slices.Contains([]string{"certificaterequests", "podcertificaterequests", "certificatesigningrequests", "secrets", "*"}, name) &&
			(slices.Contains(verbs, "create") || slices.Contains(verbs, "*")) {
			s.Errorf("the node plugin may create: %s", line)
		}
	}
}

// nativeVolumes are podCertificate volumes of Kubernetes, which a CA signs that an issuer of cert-manager has signed.
func (s *story) nativeVolumes() {
	s.Helper()
	root := s.corp()
	s.start(pod("native", native("csi.mayfly.dev/clusterissuer.corp", nil), idle), pod("named", native("csi.mayfly.dev/clusterissuer.corp", map[string]string{
		"csi.mayfly.dev/dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc", "csi.mayfly.dev/spiffe": "false",
	}), idle))
	for name, want := range map[string]string{
		"native": "[] [spiffe://cluster.local/ns/" + s.namespace + "/sa/default]",
		"named":  "[named." + s.namespace + ".svc] []",
	} {
		leaf := s.chain(name, root)
		if got := fmt.Sprint(leaf.DNSNames, " ", leaf.URIs); got != want {
			s.Errorf("the certificate of %s is for %s, not %s", name, got, want)
		}
	}
	bundle, err := shared.Client.CertificatesV1().ClusterTrustBundles().Get(s.Context(), "csi.mayfly.dev:clusterissuer.corp:ca", metav1.GetOptions{})
	if err != nil || strings.TrimSpace(bundle.Spec.TrustBundle) != strings.TrimSpace(string(root)) {
		s.Errorf("the bundle is %+v (%v)", bundle, err)
	}
	s.create(pod("foreign", native("csi.mayfly.dev/issuer.default.corp", nil), idle))
	s.until("the request of another namespace's issuer to be denied", s.answered("foreign", "Denied NotTheVolumes", "csi.mayfly.dev/issuer."+s.namespace+".<name>, of the pod's own namespace"))
	s.create(pod("spoof", native("csi.mayfly.dev/volume", nil), idle))
	s.until("the request for the node plugins' signer to be denied", s.answered("spoof", "Denied NoVolume", "podCertificate volumes have the signers csi.mayfly.dev/issuer.<namespace>.<name> and csi.mayfly.dev/clusterissuer.<name>"))
	s.create(pod("early", native("csi.mayfly.dev/issuer."+s.namespace+".late", nil), idle))
	s.says("early", "NotSignedYet", "make a Certificate of cert-manager in namespace mayfly-ca with isCA: true and secretName: issuer."+s.namespace+".late")
	s.authority("issuer."+s.namespace+".late", "corp")
	s.ready("early")
}

// native has Kubernetes' own volume in the place of Mayfly's.
func native(signer string, annotations map[string]string) change {
	return func(spec *corev1.PodSpec) {
		spec.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			PodCertificate: &corev1.PodCertificateProjection{SignerName: signer, KeyType: "ECDSAP256", CredentialBundlePath: "bundle.pem", UserAnnotations: annotations},
		}}}}}}
	}
}

// chain is the certificate in a native volume, which must lead to the root, and be of the key beside it.
func (s *story) chain(pod string, root []byte) *x509.Certificate {
	s.Helper()
	text, err := s.exec(pod, "cat", "/tls/bundle.pem")
	if err != nil {
		s.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		s.Fatal(err)
	}
	intermediates, roots := x509.NewCertPool(), x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		one, err := x509.ParseCertificate(der)
		if err != nil {
			s.Fatal(err)
		}
		intermediates.AddCert(one)
	}
	roots.AppendCertsFromPEM(root)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil || len(pair.Certificate) != 2 {
		s.Errorf("the chain of pod %s has %d certificates: %v", pod, len(pair.Certificate), err)
	}
	return pair.Leaf
}

// corp makes a ClusterIssuer that signs with a root of its own, and a CA of the controller that it signed. It returns the root.
func (s *story) corp() (root []byte) {
	s.Helper()
	const manifest = "testdata/corp.yaml"
	s.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "--ignore-not-found", "--filename", manifest); err != nil {
			s.Error(err)
		}
		if _, err := shared.Kubectl(context.Background(), "--namespace=cert-manager", "delete", "--ignore-not-found", "secret", "corp"); err != nil {
			s.Error(err)
		}
	})
	if _, err := shared.Kubectl(s.Context(), "apply", "--filename", manifest); err != nil {
		s.Fatal(err)
	}
	s.authority("clusterissuer.corp", "corp")
	secret, err := shared.Client.CoreV1().Secrets("cert-manager").Get(s.Context(), "corp", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return secret.Data["tls.crt"]
}

// authority makes a CA of the controller that a ClusterIssuer signs, until the story ends.
func (s *story) authority(name, issuer string) {
	s.Helper()
	certificates := shared.CertManager.CertmanagerV1().Certificates(caNamespace)
	s.Cleanup(func() { // Who leaves the mode deletes the namespace, and all but the bundle with it.
		ctx := context.Background()
		if err := certificates.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.Error(err)
		}
		if err := shared.Client.CoreV1().Secrets(caNamespace).Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.Error(err)
		}
		if err := shared.Client.CertificatesV1().ClusterTrustBundles().Delete(ctx, "csi.mayfly.dev:"+name+":ca", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			s.Error(err)
		}
	})
	_, err := certificates.Create(s.Context(), &cmapi.Certificate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: cmapi.CertificateSpec{
			IsCA: true, CommonName: "CA of the controller", SecretName: name, IssuerRef: cmmeta.IssuerReference{Name: issuer, Kind: "ClusterIssuer", Group: "cert-manager.io"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm, Size: 256},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.until("the CA "+name, func(ctx context.Context) error {
		_, err := shared.Client.CoreV1().Secrets(caNamespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
}

// answered says whether a PodCertificateRequest for a pod has an answer that has the words.
func (s *story) answered(pod string, words ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		requests, err := shared.Client.CertificatesV1().PodCertificateRequests(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "spec.podName=" + pod})
		if err != nil {
			return err
		}
		answers := ""
		for _, pcr := range requests.Items {
			answers += conditions(&pcr)
		}
		if !containsAll(answers, words) {
			err = fmt.Errorf("the answer is %q", answers)
		}
		return err
	}
}

func conditions(pcr *certificatesv1.PodCertificateRequest) (all string) {
	for _, c := range pcr.Status.Conditions {
		all += fmt.Sprintf("%s %s: %s\n", c.Type, c.Reason, c.Message)
	}
	return all
}

// stolenRights is what someone tries with the token of node-a's driver in this mode, and with all rights of node-a.
func stolenRights(s *story) {
	s.byPodCertificates()
	bare := pod("bare", on("node-a"), idle)
	bare.Spec.Volumes, bare.Spec.Containers[0].VolumeMounts = nil, nil
	short := brief()
	s.start(pod("web", own(short...), on("node-a")), pod("db", own(short...), on("node-b")), pod("brief", own(short...), on("node-a")), bare)
	web, db, gone, asWeb := s.ready("web"), s.ready("db"), s.ready("brief"), s.ready("bare")
	s.rootOnWorker(db)
	asWeb.Spec.Volumes = web.Spec.Volumes // The thief says that it has one.
	s.delete("brief")
	for who, config := range map[string]*rest.Config{"token": s.thiefAsNode(), "node": s.node("node-a")} {
		for i, row := range []struct {
			name   string
			pod    *corev1.Pod
			change func(*certificatesv1.PodCertificateRequestSpec)
			want   string
		}{
			{"what the driver itself asks", web, func(*certificatesv1.PodCertificateRequestSpec) {}, "Issued VerifiedByMayfly"},
			{"a pod of another node", db, func(*certificatesv1.PodCertificateRequestSpec) {}, "not the requesting node"},
			{"a pod of another node that is said to run here", db, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.NodeName, r.NodeUID = "node-a", s.nodeUID("node-a")
			}, "is not running on node"},
			{"a pod that is gone", gone, func(*certificatesv1.PodCertificateRequestSpec) {}, "not found"},
			{"a pod's name with another's UID", web, func(r *certificatesv1.PodCertificateRequestSpec) { r.PodUID = db.UID }, "differs from running pod"},
			{"a pod without a volume", asWeb, func(*certificatesv1.PodCertificateRequestSpec) {}, "Denied NoVolume"},
			{"another account", web, func(r *certificatesv1.PodCertificateRequestSpec) { r.ServiceAccountName = "admin" }, "differs from running pod"},
			{"another volume's id", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.UnverifiedUserAnnotations["csi.mayfly.dev/volume-id"] = "csi-0"
			}, "Denied NoVolume"},
			{"one name more", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.StubPKCS10Request = s.stub(web, brief("dns-names=web.test,db.test")...)
			}, "Denied NotTheVolumes: the request is not what volume tls of pod web asks for: DNS names: "},
			{"another SPIFFE ID", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.StubPKCS10Request = s.stub(web, brief("spiffe=false", "uri-sans=spiffe://cluster.local/ns/kube-system/sa/default")...)
			}, "URIs: "},
			{"another key", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.StubPKCS10Request = s.stub(web, brief("key-algorithm=RSA", "key-size=3072")...)
			}, "key: "},
			{"a signing request of another pod", web, func(r *certificatesv1.PodCertificateRequestSpec) { r.StubPKCS10Request = s.stub(db, short...) }, "DNS names: "},
			{"a longer life", web, func(r *certificatesv1.PodCertificateRequestSpec) { r.MaxExpirationSeconds = new(int32(86400)) }, "duration: "},
			{"an annotation", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.UnverifiedUserAnnotations["csi.mayfly.dev/is-ca"] = "true"
			}, "unverifiedUserAnnotations: "},
			{"a signer of native volumes", web, func(r *certificatesv1.PodCertificateRequestSpec) {
				r.SignerName = "csi.mayfly.dev/clusterissuer.corp"
			}, "podcertificate"},
		} {
			pcr, err := forge.PodCertificate(row.pod, fmt.Sprintf("forged-%s-%d", who, i), s.nodeUID(row.pod.Spec.NodeName), s.accountUID())
			if err != nil {
				s.Fatal(err)
			}
			row.change(&pcr.Spec)
			if got := s.becomes(config, pcr); !strings.Contains(strings.ToLower(got), strings.ToLower(row.want)) {
				s.Errorf("%s, by the %s:\n got %s\nwant %s", row.name, who, got, row.want)
			}
		}
	}
	s.changedPodSpec("forged-node-0")
	s.nothingElse(web)
}

// changedPodSpec has the thief, the node and an administrator change what a PodCertificateRequest asks for.
func (s *story) changedPodSpec(name string) {
	s.Helper()
	for _, row := range []struct {
		who  string
		as   *rest.Config
		want string
	}{
		{"the token", s.thiefAsNode(), "forbidden"},
		{"the node", s.node("node-a"), `cannot patch resource "podcertificaterequests"`},
		{"an administrator", shared.REST, "field is immutable"},
	} {
		_, err := s.client(row.as).CertificatesV1().PodCertificateRequests(s.namespace).Patch(s.Context(), name, types.MergePatchType,
			[]byte(`{"spec": {"maxExpirationSeconds": 7200}}`), metav1.PatchOptions{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			s.Errorf("%s changes the spec:\n got %v\nwant %s", row.who, err, row.want)
		}
	}
}

// nothingElse demands that the driver's token alone gets nothing, and no other node's part.
func (s *story) nothingElse(web *corev1.Pod) {
	s.Helper()
	plain := rest.CopyConfig(s.thiefAsNode())
	plain.Impersonate = rest.ImpersonationConfig{}
	other := rest.CopyConfig(plain)
	other.Impersonate.UserName = "system:node:node-b"
	for name, config := range map[string]*rest.Config{"plain": plain, "other": other} {
		pcr, err := forge.PodCertificate(web, "forged-"+name, s.nodeUID("node-a"), s.accountUID())
		if err != nil {
			s.Fatal(err)
		}
		if got := s.becomes(config, pcr); !strings.Contains(got, "forbidden") {
			s.Errorf("%s: %s", name, got)
		}
	}
	cr, err := forge.Request(web, "forged")
	if err != nil {
		s.Fatal(err)
	}
	if got := s.outcome(s.thief("node-a"), cr); !strings.Contains(got, "cannot create resource") {
		s.Errorf("a CertificateRequest: %s", got)
	}
	for _, who := range []*rest.Config{s.thiefAsNode(), s.node("node-a")} {
		requests := s.client(who).CertificatesV1().PodCertificateRequests(s.namespace)
		if err := requests.Delete(s.Context(), "forged-node-0", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
			s.Errorf("deletes: %v", err)
		}
		if _, err := requests.Patch(s.Context(), "forged-node-0", "application/merge-patch+json", []byte(`{"status": {"certificateChain": "x"}}`), metav1.PatchOptions{}, "status"); !apierrors.IsForbidden(err) {
			s.Errorf("signs: %v", err)
		}
	}
	if _, err := s.client(shared.REST).CertificatesV1().PodCertificateRequests(s.namespace).Create(s.Context(), s.forgedPod(web), metav1.CreateOptions{}); !refused(err, "only the node that is named in it asks") {
		s.Errorf("someone who may create requests, and is no node: %v", err)
	}
}

func (s *story) forgedPod(of *corev1.Pod) *certificatesv1.PodCertificateRequest {
	s.Helper()
	pcr, err := forge.PodCertificate(of, "forged-admin", s.nodeUID("node-a"), s.accountUID())
	if err != nil {
		s.Fatal(err)
	}
	return pcr
}

// stub is the signing request for a volume of the pod with other attributes.
func (s *story) stub(of *corev1.Pod, attributes ...string) []byte {
	s.Helper()
	of = of.DeepCopy()
	own(attributes...)(&of.Spec)
	pcr, err := forge.PodCertificate(of, "forged", "", "")
	if err != nil {
		s.Fatal(err)
	}
	return pcr.Spec.StubPKCS10Request
}

// thiefAsNode is the token of the driver's pod on node-a, which makes itself the node.
func (s *story) thiefAsNode() *rest.Config {
	s.Helper()
	config := s.stolen("node-a")
	config.Impersonate.UserName = "system:node:node-a"
	return config
}

// node is a node itself.
func (s *story) node(name string) *rest.Config {
	config := rest.CopyConfig(shared.REST)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
	return config
}

func (s *story) client(config *rest.Config) *kubernetes.Clientset {
	s.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	return client
}

func (s *story) nodeUID(name string) types.UID {
	s.Helper()
	node, err := shared.Client.CoreV1().Nodes().Get(s.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return node.UID
}

func (s *story) accountUID() types.UID {
	s.Helper()
	account, err := shared.Client.CoreV1().ServiceAccounts(s.namespace).Get(s.Context(), "default", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return account.UID
}

// becomes is what becomes of a PodCertificateRequest: the API server's refusal, or the answer.
func (s *story) becomes(config *rest.Config, pcr *certificatesv1.PodCertificateRequest) (answer string) {
	s.Helper()
	if _, err := s.client(config).CertificatesV1().PodCertificateRequests(s.namespace).Create(s.Context(), pcr, metav1.CreateOptions{}); err != nil {
		return err.Error()
	}
	s.until("an answer to "+pcr.Name, func(ctx context.Context) error {
		now, err := shared.Client.CertificatesV1().PodCertificateRequests(s.namespace).Get(ctx, pcr.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if answer = conditions(now); answer == "" {
			return errors.New("there is none")
		}
		return nil
	})
	return answer
}
