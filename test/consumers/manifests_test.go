package consumers

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/example"
)

// pods calls f with every pod of the examples.
func pods(t *testing.T, f func(*testing.T, example.Example, example.Pod)) {
	t.Helper()
	for _, name := range example.Names(t) {
		e := example.Read(t, name)
		if len(e.Pods) == 0 {
			t.Errorf("%s.yaml has no pod", name)
		}
		for _, pod := range e.Pods {
			t.Run(name+"/"+pod.Name, func(t *testing.T) { f(t, e, pod) })
		}
	}
}

func TestTheDriverTakesEveryExample(t *testing.T) {
	pods(t, func(t *testing.T, _ example.Example, pod example.Pod) {
		volumes := 0
		for _, v := range pod.Spec.Volumes {
			if v.CSI == nil {
				continue
			}
			volumes++
			if v.CSI.Driver != "csi.mayfly.dev" || v.CSI.ReadOnly == nil || !*v.CSI.ReadOnly {
				t.Errorf("volume %s: driver %s, or not read-only", v.Name, v.CSI.Driver)
			}
			asked := volume.Asked{ID: "csi-1", Target: "/target", Asked: spec.Asked{Driver: v.CSI.Driver, Attributes: map[string]string{
				"csi.storage.k8s.io/pod.name": pod.Name + "-0", "csi.storage.k8s.io/pod.namespace": "default", "csi.storage.k8s.io/pod.uid": "1",
				"csi.storage.k8s.io/serviceAccount.name": pod.Identity(), "csi.storage.k8s.io/ephemeral": "true",
			}}}
			maps.Copy(asked.Attributes, v.CSI.VolumeAttributes)
			if got, err := volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "cluster.local"}}); err != nil {
				t.Error(err)
			} else if len(got.Annotations) > 0 || got.Issuer.Name == "" {
				t.Errorf("annotations %v, which no example means, or no issuer: %v", got.Annotations, got.Issuer)
			}
		}
		if volumes != 1 {
			t.Errorf("%d CSI volumes", volumes)
		}
	})
}

// The strictest of the Pod Security Standards, by Kubernetes' own check.
func TestEveryExampleIsRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pods(t, func(t *testing.T, _ example.Example, pod example.Pod) {
		restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		for _, result := range evaluator.EvaluatePod(restricted, &pod.Meta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
	})
}

func TestImagesHaveAVersionAndNoRegistry(t *testing.T) {
	image := regexp.MustCompile(`^([a-z]+/)?[a-z]+:v?[0-9]+\.[0-9]+[a-z0-9.-]*$`)
	pods(t, func(t *testing.T, _ example.Example, pod example.Pod) {
		for _, c := range pod.Spec.Containers {
			if !image.MatchString(c.Image) {
				t.Errorf("image %s", c.Image)
			}
		}
	})
}

// The certificate has the names of the service that clients call, and the service finds the pod.
func TestServicesFindTheirPods(t *testing.T) {
	for _, name := range example.Names(t) {
		e := example.Read(t, name)
		for _, s := range e.Services {
			i := slices.IndexFunc(e.Pods, func(p example.Pod) bool {
				return !slices.ContainsFunc(slices.Collect(maps.Keys(s.Spec.Selector)), func(key string) bool { return p.Meta.Labels[key] != s.Spec.Selector[key] })
			})
			if i < 0 {
				t.Errorf("%s.yaml: the service %s finds no pod", name, s.Name)
				continue
			}
			names := volumeOf(t, e, e.Pods[i].Name).VolumeAttributes["csi.mayfly.dev/dns-names"]
			if names != "" && !slices.Contains(strings.Split(names, ","), s.Name+".${POD_NAMESPACE}.svc") {
				t.Errorf("%s.yaml: the certificate has the names %s, and the service is %s", name, names, s.Name)
			}
			for _, port := range s.Spec.Ports {
				if !slices.ContainsFunc(e.Pods[i].Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == port.TargetPort.String() }) {
					t.Errorf("%s.yaml: the service %s has the port %s, and the pod has none", name, s.Name, port.TargetPort.String())
				}
			}
		}
	}
}
