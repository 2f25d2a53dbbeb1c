package review

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	kubeyaml "sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
)

// Objects are those of files.
type Objects struct {
	Policies []v1alpha1.CertificatePolicy
	Pods     []*corev1.Pod // Those that there are, and one for each workload. They may have no namespace.
	Others   int           // Objects of other kinds, which are passed over.
}

// Read reads the objects of a file: documents of YAML, or JSON.
func Read(file io.Reader) (all Objects, err error) {
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err == nil && !empty(document) {
			err = all.read(document)
		}
		if err != nil {
			return Objects{}, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

// Add adds other objects. Policies are put in the place of those of their name.
func (o *Objects) Add(others Objects) {
	o.Policies = Merge(o.Policies, others.Policies)
	o.Pods = append(o.Pods, others.Pods...)
	o.Others += others.Others
}

// empty reports whether a document has comments at most.
func empty(document []byte) bool {
	for line := range bytes.Lines(document) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

func (o *Objects) read(document []byte) error {
	var is metav1.TypeMeta
	if err := kubeyaml.Unmarshal(document, &is); err != nil {
		return oneLine(err)
	}
	group, _, _ := strings.Cut(is.APIVersion, "/")
	switch {
	case is.Kind == "":
		return errors.New("it has no kind")
	case is.Kind == "List":
		return o.readList(document)
	case is.Kind == v1alpha1.Kind || group == v1alpha1.GroupVersion().Group:
		p, err := readPolicy(document, is)
		o.Policies = append(o.Policies, p)
		return err
	}
	pod, err := readPod(document, is.Kind)
	switch {
	case err != nil:
		return oneLine(err)
	case pod == nil:
		o.Others++
	case pod.Name == "":
		return errors.New("metadata.name is missing")
	default:
		o.Pods = append(o.Pods, pod)
	}
	return nil
}

// readList reads what kubectl writes for several objects.
func (o *Objects) readList(document []byte) error {
	var list struct{ Items []json.RawMessage }
	if err := kubeyaml.Unmarshal(document, &list); err != nil {
		return oneLine(err)
	}
	for i, item := range list.Items {
		if err := o.read(item); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func readPolicy(document []byte, is metav1.TypeMeta) (p v1alpha1.CertificatePolicy, err error) {
	if is.APIVersion != v1alpha1.GroupVersion().String() || is.Kind != v1alpha1.Kind {
		const format = "it is a %q of %q, and must be a %s of %s"
		return p, fmt.Errorf(format, is.Kind, is.APIVersion, v1alpha1.Kind, v1alpha1.GroupVersion())
	}
	if err := kubeyaml.UnmarshalStrict(document, &p); err != nil {
		return p, oneLine(err)
	}
	if p.Name == "" {
		return p, errors.New("metadata.name is missing")
	}
	return p, nil
}

// A workload is what the kinds that make pods have in common: a template.
type workload struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

// readPod returns the pod of a document, or one that its workload would make; nil: it makes none.
func readPod(document []byte, kind string) (*corev1.Pod, error) {
	var w workload
	switch kind {
	case "Pod":
		pod := &corev1.Pod{}
		return pod, kubeyaml.Unmarshal(document, pod)
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
		if err := kubeyaml.Unmarshal(document, &w); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	template := w.Spec.Template
	if kind == "CronJob" {
		template = w.Spec.JobTemplate.Spec.Template
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Namespace, pod.Name = w.Metadata.Namespace, w.Metadata.Name
	switch {
	case pod.Name == "":
	case kind == "StatefulSet":
		pod.Name += "-0"
	default:
		pod.Name += "-xxxxx" // What the API server puts there is not known.
	}
	return pod, nil
}

func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }

// Merge returns the policies with others added, or put in the place of those of their name.
func Merge(policies, others []v1alpha1.CertificatePolicy) []v1alpha1.CertificatePolicy {
	merged := slices.Clone(policies)
	for _, other := range others {
		same := func(p v1alpha1.CertificatePolicy) bool { return p.Name == other.Name }
		merged = append(slices.DeleteFunc(merged, same), other)
	}
	return merged
}
