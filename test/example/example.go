// Package example has the pods of manifests/examples run on this machine without Kubernetes: the node plugin is the real binary with the
// embedded CA, the volumes are those that the manifest asks for, and a container is a process with the manifest's command, user and mounts, in
// namespaces of its own. What an image would hold comes from the machine.
package example

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// An Example is a file of manifests/examples.
type Example struct {
	Name       string
	Pods       []Pod // In the order of the file.
	ConfigMaps map[string]map[string]string
	Services   []corev1.Service
}

// A Pod is the pod of a workload.
type Pod struct {
	Name string // The workload's.
	Meta metav1.ObjectMeta
	Spec corev1.PodSpec
}

// Identity is the service account that the pod runs as.
func (p Pod) Identity() string { return cmp.Or(p.Spec.ServiceAccountName, "default") }

// Names are all examples.
func Names(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Repository(t), "manifests", "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples, %v", err)
	}
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".yaml"))
	}
	return names
}

// Repository is the directory of the repository.
func Repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "manifests", "examples")); err == nil {
			return dir
		}
	}
	t.Fatal("no directory above has manifests/examples")
	return ""
}

// Read reads an example. A kind that no example should need, and a field that a kind does not have, fail the test.
func Read(t *testing.T, name string) Example {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Repository(t), "manifests", "examples", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	e := Example{Name: name, ConfigMaps: map[string]map[string]string{}}
	for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return e
		}
		if err == nil {
			err = e.add(document)
		}
		if err != nil {
			t.Fatalf("%s.yaml: %v", name, err)
		}
	}
}

func (e *Example) add(document []byte) error {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(document, &kind); err != nil {
		return err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 ConfigMap":
		var o corev1.ConfigMap
		err := yaml.UnmarshalStrict(document, &o)
		e.ConfigMaps[o.Name] = o.Data
		return err
	case "v1 Service":
		var o corev1.Service
		err := yaml.UnmarshalStrict(document, &o)
		e.Services = append(e.Services, o)
		return err
	case "v1 ServiceAccount":
		return yaml.UnmarshalStrict(document, &corev1.ServiceAccount{})
	case "v1 Pod":
		var o corev1.Pod
		err := yaml.UnmarshalStrict(document, &o)
		e.Pods = append(e.Pods, Pod{o.Name, o.ObjectMeta, o.Spec})
		return err
	case "apps/v1 Deployment":
		var o appsv1.Deployment
		err := yaml.UnmarshalStrict(document, &o)
		e.Pods = append(e.Pods, Pod{o.Name, o.Spec.Template.ObjectMeta, o.Spec.Template.Spec})
		return err
	case "apps/v1 StatefulSet":
		var o appsv1.StatefulSet
		err := yaml.UnmarshalStrict(document, &o)
		spec := o.Spec.Template.Spec
		for _, claim := range o.Spec.VolumeClaimTemplates { // As the StatefulSet's controller does.
			spec.Volumes = append(spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + o.Name + "-0"},
			}})
		}
		e.Pods = append(e.Pods, Pod{o.Name, o.Spec.Template.ObjectMeta, spec})
		return err
	}
	return errors.New("has a " + kind.APIVersion + " " + kind.Kind + ", which the tests do not know")
}
