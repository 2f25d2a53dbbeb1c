package certificaterequests

import (
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A release writes down what its node plugins ask for: `go test ./signer/controller/certificaterequests -run TestVersions -update v0.2`.
var update = flag.String("update", "", "the version under which testdata gets what node plugins ask for now")

// An exhibit is a pod, and what the node plugin of a version asked for its volume.
type exhibit struct {
	Pod      *corev1.Pod               `json:"pod"`
	Profiles string                    `json:"profiles,omitempty"` // Of the ConfigMap.
	Request  *cmapi.CertificateRequest `json:"request"`
}

// exhibits are pods with volumes of many kinds.
func exhibits() map[string]exhibit {
	with := func(attributes ...string) exhibit {
		return exhibit{Pod: web(attributes...)}
	}
	of := func(driver string, attributes ...string) exhibit {
		pod := web()
		pod.Spec.Volumes = []corev1.Volume{inline("tls", driver, attributes...)}
		return exhibit{Pod: pod}
	}
	ours := func(attributes ...string) exhibit {
		for i, a := range attributes {
			attributes[i] = spec.Prefix + a
		}
		return with(attributes...)
	}
	profiled := with()
	profiled.Profiles = "profiles: {short: {duration: 5m, key-algorithm: Ed25519}}\nnamespaces: {shop: short}"
	dual := ours("ip-sans=${POD_IPS}")
	dual.Pod.Status.PodIPs = append(dual.Pod.Status.PodIPs, corev1.PodIP{IP: "fd00::7"})
	return map[string]exhibit{
		"plain":           with(),
		"rsa-2048":        ours("key-algorithm=RSA", "key-size=2048"),
		"rsa-4096":        ours("key-algorithm=RSA", "key-size=4096"),
		"p-384":           ours("key-size=384"),
		"p-521":           ours("key-size=521"),
		"ed25519":         ours("key-algorithm=Ed25519"),
		"spiffe":          ours("spiffe=true", "dns-names="),
		"uri":             ours("uri-sans=spiffe://example.org/${POD_NAMESPACE}/${SERVICE_ACCOUNT_NAME}/${POD_UID}"),
		"names":           ours("common-name=${POD_NAME}.${POD_NAMESPACE}.svc", "dns-names=a.shop,*.shop.svc,${POD_NAME}"),
		"ips":             ours("ip-sans=${POD_IP},10.1.2.3"),
		"ips-of-two":      dual,
		"subject":         ours("common-name=web", `organizations=Shop,"Shop, Inc."`, "organizationalunits=Web,Till", "countries=DE", "provinces=Hessen", "localities=Kassel", `streetaddresses="Königsplatz 1"`, "postalcodes=34117", "serialnumber=1234"),
		"literal-subject": ours("literal-subject=CN=${POD_NAME},OU=web,O=Shop"),
		"usages":          ours("key-usages=client auth,digital signature,key encipherment"),
		"ca":              ours("is-ca=true"),
		"times":           ours("duration=30m", "renew-before=10m", "renew-window=Sat,Sun 02:00-04:00"),
		"issuer":          ours("issuer-name=public", "issuer-kind=ClusterIssuer", "issuer-group=awspca.cert-manager.io"),
		"annotations":     with("example.org/team=shop", "venafi.cert-manager.io/custom-fields=[]"),
		"layout":          ours("layout=pem,bundle,pkcs12", "trust=issuer", "renew=false"),
		"profile":         profiled,
		"old":             of(spec.OldDriver, "csi.cert-manager.io/issuer-name=ca", "csi.cert-manager.io/dns-names=web.shop.svc"),
		"old-subject":     of(spec.OldDriver, "csi.cert-manager.io/issuer-name=ca", "csi.cert-manager.io/common-name=web", "csi.cert-manager.io/key-encoding=PKCS8", "csi.cert-manager.io/duration=24h"),
		"mesh":            of(spec.SPIFFEDriver),
	}
}

// defaultsOf are those of the node plugin and the controller.
func defaultsOf(t *testing.T, x exhibit) spec.Defaults {
	t.Helper()
	defaults := rules().Defaults
	if x.Profiles != "" {
		var err error
		if defaults.Live, err = spec.ParseProfiles(map[string]string{spec.ProfilesKey: x.Profiles}); err != nil {
			t.Fatal(err)
		}
	}
	return defaults
}

// asks is what the node plugin of now asks the API server for the pod's last volume, with what cert-manager's webhook writes down.
func (x exhibit) asks(t *testing.T) *cmapi.CertificateRequest {
	t.Helper()
	cr := sent(t, derived(t, x.Pod, defaultsOf(t, x)))
	cr.CreationTimestamp = metav1.NewTime(created)
	cr.Spec.Username, cr.Spec.Extra = nodePlugin, map[string][]string{nodeName: {x.Pod.Spec.NodeName}}
	return cr
}

// sent is what the signer sends to the API server.
func sent(t *testing.T, req signer.Request) (cr *cmapi.CertificateRequest) {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost { // Else it looks whether there is one.
			cr = &cmapi.CertificateRequest{}
			if err := json.NewDecoder(r.Body).Decode(cr); err != nil {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
		}
		http.Error(w, "seen", http.StatusForbidden)
	}))
	defer api.Close()
	s, err := certmanager.New(&rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(t.Context(), req); cr == nil {
		t.Fatalf("nothing was asked: %v", err)
	}
	return cr
}

func TestVersions(t *testing.T) {
	if *update != "" {
		writeDown(t, filepath.Join("testdata", *update))
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*", "*.yaml"))
	if err != nil || len(files) < len(exhibits()) {
		t.Fatalf("%d exhibits (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var x exhibit
			if err := yaml.UnmarshalStrict(text, &x); err != nil {
				t.Fatal(err)
			}
			olderPlugin(t, x)
			newerPlugin(t, x, strings.Contains(file, "v0.1"))
		})
	}
}

// olderPlugin: what a node plugin of that version asked for is approved.
func olderPlugin(t *testing.T, x exhibit) {
	t.Helper()
	r := rules()
	r.Defaults = defaultsOf(t, x)
	r.Policy = anything{}
	node := &corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.0.0/24", "fd00::/64"}}}
	if got := decideOn(r, x.Request, x.Pod, node, created); got.Verdict != decide.Approve {
		t.Errorf("an older node plugin's request: %+v", got)
	}
}

// newerPlugin: a node plugin of now asks for what the controller of that version derived, which is what its node
// plugin asked for. One from before 0.1.0 must be updated before its node plugins: it knows no usages in signing
// requests, and no annotation for the volume.
func newerPlugin(t *testing.T, x exhibit, withoutUsages bool) {
	t.Helper()
	if csi := x.Pod.Spec.Volumes[len(x.Pod.Spec.Volumes)-1].CSI; withoutUsages && csi.Driver == spec.Driver {
		csi.VolumeAttributes[spec.Prefix+"usages-in-request"] = "false"
	}
	now, then := x.asks(t), x.Request.DeepCopy()
	if withoutUsages { // Nor does it know the annotation.
		delete(now.Annotations, signer.VolumeAnnotation)
	}
	if got, want := csr(t, now), csr(t, then); got != want {
		t.Errorf("a newer node plugin asks for\n%s\nan older controller wants\n%s", got, want)
	}
	now.Spec.Request, then.Spec.Request = nil, nil
	now.CreationTimestamp = then.CreationTimestamp // Another zone of the same time.
	if !equality.Semantic.DeepEqual(now, then) {
		t.Errorf("a newer node plugin asks for\n%+v\nan older controller wants\n%+v", now, then)
	}
}

// csr is a signing request without its key.
func csr(t *testing.T, cr *cmapi.CertificateRequest) string {
	t.Helper()
	is, err := parsed(cr.Spec.Request)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v, version %d, subject %x, attributes %v, extensions %v", spec.KindOf(is.PublicKey), is.Version, is.RawSubject, is.Attributes, extensions(is)) //nolint:staticcheck // Attributes are compared, not understood.
}

func extensions(is *x509.CertificateRequest) (all []string) {
	for _, e := range is.Extensions {
		all = append(all, fmt.Sprintf("%s %v %x", e.Id, e.Critical, e.Value))
	}
	return all
}

func writeDown(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, x := range exhibits() {
		x.Request = x.asks(t)
		text, err := yaml.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "PRIVATE KEY") {
			t.Fatal("a private key is written down")
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
