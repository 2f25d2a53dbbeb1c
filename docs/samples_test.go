package docs_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// Every object in a sample of a document is one that an API server takes: no field is misspelt.
func TestSamplesAreObjects(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(appsv1.AddToScheme(scheme), certificatesv1.AddToScheme(scheme), cmapi.AddToScheme(scheme),
		corev1.AddToScheme(scheme), storagev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	objects := 0
	for _, name := range []string{"security.md", "controller.md", "authority.md", "pod-certificates.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllStringSubmatch(string(text), -1) {
			for one := range strings.SplitSeq(block[1], "\n---\n") {
				if !strings.Contains(one, "apiVersion:") { // A part of an object.
					continue
				}
				objects++
				if _, _, err := decoder.Decode([]byte(one), nil, nil); err != nil {
					t.Errorf("%s: %v:\n%s", name, err, one)
				}
			}
		}
	}
	if objects < 8 {
		t.Errorf("%d objects", objects)
	}
}
