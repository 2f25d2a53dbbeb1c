package decide

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A pod with too many volumes is denied, and its author reads why.
func TestManyVolumes(t *testing.T) {
	for _, row := range []struct {
		ours, native int
		over         bool
	}{{100, 28, false}, {100, 29, true}, {0, 129, true}} {
		pod := web()
		r := asks(t, pod)
		pod.Spec.Volumes = append(slices.Repeat(pod.Spec.Volumes, row.ours), native(row.native, nil))
		d := Decide(r, pod, nil, rules(), now())
		over := d.Message == "pod web has 129 volumes that may ask for certificates: at most 128"
		if over != row.over || d.Verdict == Approve && row.over {
			t.Errorf("%d and %d volumes: %+v", row.ours, row.native, d)
		}
	}
}

// native is a volume with podCertificate sources.
func native(n int, annotations map[string]string) corev1.Volume {
	source := corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
		SignerName: Domain + "clusterissuer.corp", KeyType: "ECDSAP256", UserAnnotations: annotations,
	}}
	return corev1.Volume{Name: "native", VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: slices.Repeat([]corev1.VolumeProjection{source}, n)},
	}}
}

// A request costs as much in a pod with 128 volumes as in one with one: one volume is parsed, also where it is denied.
func TestOneVolumeIsParsed(t *testing.T) {
	annotations := map[string]string{spec.Prefix + "dns-names": strings.Repeat("a.test,", 100) + "b.test"}
	cost := func(n int, ours bool) float64 {
		pod := web()
		r := asks(t, pod)
		if ours {
			one := pod.Spec.Volumes[0]
			pod.Spec.Volumes = append(slices.Repeat([]corev1.Volume{{Name: "other", VolumeSource: one.VolumeSource}}, n-1), one)
		} else {
			pod.Spec.Volumes = []corev1.Volume{native(n, annotations)}
			r.ServiceAccount, r.CSR = "clerk", csr(t, spec.Spec{Key: spec.Key{Algorithm: spec.ECDSA, Size: 256}})
			r.Native = &Native{Signer: Domain + "clusterissuer.corp", Lifetime: Lifetime(nil), Annotations: annotations}
		}
		want := map[bool]string{true: Verified, false: NotAllowed}[ours]
		return testing.AllocsPerRun(5, func() {
			if d := Decide(r, pod, nil, rules(), now()); d.Reason != want {
				t.Fatalf("%+v", d)
			}
		})
	}
	for _, ours := range []bool{true, false} {
		if one, many := cost(1, ours), cost(MaxVolumes, ours); many > one+4*MaxVolumes {
			t.Errorf("inline %t: %v allocations for one volume, %v for %d", ours, one, many, MaxVolumes)
		}
	}
}

// A list in a message costs as much as what it shows.
func TestAListOfMany(t *testing.T) {
	shown := 0
	all := slices.Repeat([]counted{{&shown}}, 1<<20)
	if text := list(all); len(text) > 256 || !strings.HasSuffix(text, "…") || shown > 200 {
		t.Errorf("%d bytes, of %d elements: %s", len(text), shown, text)
	}
	if text := difference("usages", strings.Repeat("a", 1<<20), "b").Error(); len(text) > 400 {
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
