package proof

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// many is a pod with many volumes, of which the given ones are CSI volumes of the driver and the others podCertificates.
func many(ours, native int) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.UID, pod.Spec.NodeName, pod.Spec.ServiceAccountName = "web-0", "7d4f", "node-a", "web"
	for i := range ours {
		source := corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: spec.Driver}}
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprint(i), VolumeSource: source})
	}
	projected := &corev1.ProjectedVolumeSource{
		Sources: slices.Repeat([]corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{}}}, native),
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: projected}})
	return pod
}

// A pod with too many volumes is denied, and told why.
func TestManyVolumes(t *testing.T) {
	looked := 0
	for _, row := range []struct {
		name         string
		ours, native int
	}{
		{"at the limit", 100, 28}, // The volumes lack an issuer.
		{"over the limit", 100, 29},
		{"over the limit, for another's volumes", 0, 129},
	} {
		pod := many(row.ours, row.native)
		claim := Claim{Pod: pod.Name, UID: pod.UID, Node: pod.Spec.NodeName}
		if row.native == 28 {
			claim.Sources = func(*corev1.Pod) []Source { looked++; return []Source{{Name: "0"}} }
			claim.Against = func(spec.Spec) problem.List { return nil }
		}
		v := Rules{Drivers: []spec.DriverName{{Name: spec.Driver}}}.Judge(claim, Evidence{Pod: pod}, time.Now())
		over := strings.HasPrefix(v.Message, "pod web-0 has 129 volumes that may ask for certificates: at most 128")
		if v.Outcome != Deny || v.Reason != NotUnderstood || over != (row.native != 28) {
			t.Errorf("%s: %v, %s, %s", row.name, v.Outcome, v.Reason, v.Message)
		}
	}
	if looked != 1 {
		t.Errorf("the volumes at the limit were looked at %d times", looked)
	}
}

// A list in a message costs as much as what it shows.
func TestAListOfMany(t *testing.T) {
	shown := 0
	all := slices.Repeat([]counted{{&shown}}, 1<<20)
	if text := List(all); len(text) > 256 || !strings.HasSuffix(text, "…") || shown > 200 {
		t.Errorf("%d bytes, of %d elements: %s", len(text), shown, text)
	}
	if text := Difference("usages", strings.Repeat("a", 1<<20), "b").Error(); len(text) > 400 {
		t.Errorf("%d bytes", len(text))
	}
}

// A counted value counts how often it is shown.
type counted struct{ n *int }

func (c counted) String() string {
	*c.n++
	return "ab"
}

// Long subjects are compared, and not written. They would take minutes.
func TestLongSubjects(t *testing.T) {
	v := spec.Spec{Key: spec.Key{Algorithm: spec.Ed25519}}
	for i := range 1000 {
		v.Subject.Organization = append(v.Subject.Organization, fmt.Sprint(i))
		v.Subject.StreetAddress = append(v.Subject.StreetAddress, fmt.Sprint(i))
	}
	der, err := v.CSR(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	if problems := CSR(der, v); len(problems) > 0 {
		t.Error(problems)
	}
	v.Subject.Organization[0] = "another"
	if text := CSR(der, v).Error(); !strings.HasPrefix(text, "subject: asked for is one of 2") || len(text) > 200 {
		t.Error(text)
	}
}
