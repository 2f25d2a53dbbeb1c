package docs_test

import (
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// blocks are the code blocks of a document in a language. Those in a list are indented.
func blocks(t *testing.T, document, language string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?ms)^ *```"+language+"\n(.*?)^ *```$").FindAllStringSubmatch(string(text), -1) {
		found = append(found, block[1])
	}
	if len(found) == 0 {
		t.Fatalf("%s has no block of %s", document, language)
	}
	return found
}

// Every volume that a document shows is one that the driver takes, those under the names of other drivers included.
func TestTheDriverTakesTheVolumesOfTheDocuments(t *testing.T) {
	drivers := map[string]int{}
	for _, document := range []string{"consumers.md", "migrate.md"} {
		for _, block := range blocks(t, document, "yaml") {
			for _, v := range volumes(t, document, block) {
				if v.CSI == nil {
					continue
				}
				drivers[v.CSI.Driver]++
				asked := volume.Asked{ID: "csi-1", Target: "/target", Asked: spec.Asked{Driver: v.CSI.Driver, Attributes: map[string]string{
					"csi.storage.k8s.io/pod.name": "web", "csi.storage.k8s.io/pod.namespace": "default", "csi.storage.k8s.io/pod.uid": "1",
					"csi.storage.k8s.io/serviceAccount.name": "web", "csi.storage.k8s.io/ephemeral": "true",
				}}}
				maps.Copy(asked.Attributes, v.CSI.VolumeAttributes)
				if _, err := volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh-ca", TrustDomain: "cluster.local"}}); err != nil {
					t.Errorf("%s: %v, in\n%s", document, err, block)
				}
				needsNoPolicy(t, document, asked.Asked)
				if v.CSI.ReadOnly == nil || !*v.CSI.ReadOnly {
					t.Errorf("%s: not read-only:\n%s", document, block)
				}
			}
		}
	}
	for _, driver := range []string{"csi.mayfly.dev", spec.OldDriver, spec.SPIFFEDriver} {
		if drivers[driver] == 0 {
			t.Errorf("no volume of %s", driver)
		}
	}
	if len(drivers) != 3 {
		t.Errorf("drivers %v", drivers)
	}
}

// needsNoPolicy demands that a volume of a document gets its certificate in a cluster whose controller has no policies.
func needsNoPolicy(t *testing.T, document string, asked spec.Asked) {
	t.Helper()
	defaults := spec.Defaults{IssuerName: "mesh-ca", TrustDomain: "cluster.local"}
	wanted, err := spec.Parse(asked, defaults)
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	if document == "migrate.md" { // One keeps csi-driver's lifetime, and says that it needs a policy.
		wanted.Duration = min(wanted.Duration, 24*time.Hour)
	}
	id, err := defaults.SPIFFEID(wanted.Pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := (policy.Policy{ClusterDomain: "cluster.local"}).Check(wanted, decide.Identity{SPIFFEID: id}); err != nil {
		t.Errorf("%s: %v: %v", document, wanted.DNSNames, err)
	}
}

// volumes are those of a pod, or of the part of one. What else a block may be has none.
func volumes(t *testing.T, document, block string) []corev1.Volume {
	t.Helper()
	var pod corev1.Pod
	var err error
	switch {
	case strings.HasPrefix(block, "apiVersion: v1\n"):
		err = yaml.UnmarshalStrict([]byte(block), &pod)
	case strings.HasPrefix(block, "volumes:"):
		err = yaml.UnmarshalStrict([]byte(block), &pod.Spec)
	case strings.HasPrefix(block, "apiVersion: cert-manager.io/v1\nkind: Certificate\n"):
		err = yaml.UnmarshalStrict([]byte(block), &cmapi.Certificate{})
	case strings.HasPrefix(block, "apiVersion: cert-manager.io/v1\nkind: Issuer\n"):
		err = yaml.UnmarshalStrict([]byte(block), &cmapi.Issuer{})
	default: // A part of a container.
		err = yaml.UnmarshalStrict([]byte(regexp.MustCompile(`(?m)^   `).ReplaceAllString(block, "")), &corev1.Container{})
	}
	if err != nil {
		t.Fatalf("%s: %v, in\n%s", document, err, block)
	}
	return pod.Spec.Volumes
}

// What a volume gets in csi-driver's dialect, the document says in our own words.
func TestTheOldDefaultsAreSaid(t *testing.T) {
	said := volumes(t, "migrate.md", blocks(t, "migrate.md", "yaml")[2])[0].CSI.VolumeAttributes
	for _, a := range volume.Attributes() {
		if a.Name == "keystore-algorithms" { // The text says it: without a keystore among the files the attribute is an error.
			continue
		}
		if got, ok := said["csi.mayfly.dev/"+a.Name]; a.Default != a.OldDefault && !a.OnlyOld && got != a.OldDefault {
			t.Errorf("%s is %s (%t), and csi-driver's default %s", a.Name, got, ok, a.OldDefault)
		}
	}
}

// The program and the shell that consumers.md shows are those that the tests run.
func TestWhatConsumersShowsIsRun(t *testing.T) {
	for language, source := range map[string]string{"go": "../test/consumers/web/main.go", "sh": "../manifests/examples/nginx.yaml"} {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		code, _, _ := strings.Cut(blocks(t, "consumers.md", language)[0], "\nconfig := ")
		indented := regexp.MustCompile(`(?m)^ {14}`).ReplaceAllString(string(text), "")
		if !strings.Contains(indented, strings.TrimSpace(code)) {
			t.Errorf("%s has not what consumers.md shows:\n%s", source, code)
		}
	}
}
