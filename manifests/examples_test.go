package manifests_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/signer"
	certificates "github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Who copies an example gets its certificate in a cluster whose controller has no policies.
func TestExamplesNeedNoPolicy(t *testing.T) {
	all, found := objects(t, "examples/*.yaml"), 0
	var templates []corev1.PodTemplateSpec
	for _, d := range each[*appsv1.Deployment](all) {
		templates = append(templates, d.Spec.Template)
	}
	for _, s := range each[*appsv1.StatefulSet](all) {
		templates = append(templates, s.Spec.Template)
	}
	for _, template := range templates {
		for _, v := range template.Spec.Volumes {
			if v.CSI != nil {
				found++
				needsNoPolicy(t, template, v)
			}
		}
	}
	if found < 8 {
		t.Errorf("%d volumes", found)
	}
}

func needsNoPolicy(t *testing.T, of corev1.PodTemplateSpec, v corev1.Volume) {
	t.Helper()
	pod := signer.Pod{Namespace: "shop", Name: "pod-0", UID: "1", ServiceAccount: "clerk"}
	defaults := spec.Defaults{TrustDomain: "cluster.local"}
	wanted, err := spec.Parse(spec.AskedBy(pod, v.CSI.Driver, v.CSI.VolumeAttributes), defaults)
	if err != nil {
		t.Fatal(err)
	}
	id, err := defaults.SPIFFEID(pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := (certificates.Policy{ClusterDomain: "cluster.local"}).Check(wanted, decide.Identity{SPIFFEID: id}); err != nil {
		t.Errorf("%v, volume %s: %v", of.Labels, v.Name, err)
	}
}
