// Package review tells what other policies would deny of what runs in a cluster.
package review

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/signer/decide"
)

// A Change is of the rules: those of today, and those that are to come.
type Change struct{ Today, Then decide.Rules }

// A Report is what a change does to the volumes of pods that live.
type Report struct {
	Pods    int      `json:"pods"`    // With volumes of the driver.
	Volumes int      `json:"volumes"` // Of those pods.
	Denials []Denial `json:"denials"`

	Warnings []string `json:"warnings,omitempty"` // About the policies to come.
}

// A Denial is what the rules to come have against a volume.
type Denial struct {
	Namespace      string `json:"namespace"`
	Pod            string `json:"pod"`
	ServiceAccount string `json:"serviceAccount"`
	Volume         string `json:"volume"`
	New            bool   `json:"new"` // Today the volume is approved.
	Message        string `json:"message"`
}

// New returns how many volumes are approved today and would not be.
func (r Report) New() (n int) {
	for _, d := range r.Denials {
		if d.New {
			n++
		}
	}
	return n
}

// Of asks the API server for nodes and pods, and reports.
func (c Change) Of(ctx context.Context, api client.Reader) (Report, error) {
	nodes := map[string]*corev1.Node{}
	err := each(ctx, api, func() client.ObjectList { return &corev1.NodeList{} }, fields.Everything(), func(node *corev1.Node) { nodes[node.Name] = node })
	if err != nil {
		return Report{}, fmt.Errorf("list the nodes: %w", err)
	}
	report := Report{Denials: []Denial{}}
	err = each(ctx, api, func() client.ObjectList { return &corev1.PodList{} }, running(), func(pod *corev1.Pod) {
		report.add(c, pod, nodes[pod.Spec.NodeName])
	})
	if err != nil {
		return Report{}, fmt.Errorf("list the pods: %w", err)
	}
	return report, nil
}

// running leaves out, on the API server, the pods that have ended.
func running() fields.Selector {
	return fields.AndSelectors(
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	)
}

// each lists objects page by page, from the API server's cache.
func each[T runtime.Object](ctx context.Context, api client.Reader, empty func() client.ObjectList, those fields.Selector, do func(T)) error {
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := empty()
		return list, api.List(ctx, list, &client.ListOptions{
			FieldSelector: those, Limit: options.Limit, Continue: options.Continue, Raw: &metav1.ListOptions{ResourceVersion: options.ResourceVersion},
		})
	})
	return pages.EachListItem(ctx, metav1.ListOptions{ResourceVersion: "0"}, func(object runtime.Object) error {
		if one, ok := object.(T); ok {
			do(one)
		}
		return nil
	})
}

// add looks at one pod. node is the pod's, nil if it is gone.
func (r *Report) add(c Change, pod *corev1.Pod, node *corev1.Node) {
	volumes := c.Today.Volumes(pod)
	if len(volumes) == 0 || decide.Dead(pod) != "" {
		return
	}
	r.Pods++
	for _, v := range volumes {
		r.Volumes++
		if err := c.Then.Allowed(v, pod, node); err != nil {
			r.Denials = append(r.Denials, Denial{
				Namespace: pod.Namespace, Pod: pod.Name, ServiceAccount: pod.Spec.ServiceAccountName, Volume: v.Name,
				New: c.Today.Allowed(v, pod, node) == nil, Message: err.Error(),
			})
		}
	}
}
