// Package review says what other policies would deny and allow of what runs in a cluster, and what a pod would get that
// is not there yet.
package review

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
)

// A Change is of the rules: those of today, and those that are to come.
type Change struct {
	Today, Then decide.Rules
	Policies    func(signer.Pod) []string // The names of the policies that count for a pod then.
}

// A Report is what a change does to the volumes of pods that live, and to those of pods that are not there yet.
type Report struct {
	Namespace string `json:"namespace,omitempty"` // Of the pods that were looked at; empty: all.
	Policies  int    `json:"policies"`            // CertificatePolicies of the cluster.
	Added     int    `json:"added"`               // CertificatePolicies of files.
	Others    int    `json:"others,omitempty"`    // Objects of files that are no policies, pods or workloads.

	Pods      int        `json:"pods"`      // With volumes of the driver.
	Volumes   int        `json:"volumes"`   // Of those pods.
	Denials   []Denial   `json:"denials"`   // By the rules to come.
	Approvals []Approval `json:"approvals"` // By the rules to come, and not today.
	Planned   []Plan     `json:"planned,omitempty"`

	Warnings []string `json:"warnings,omitempty"` // About the policies to come.
}

// A Subject is a volume of a pod.
type Subject struct {
	Namespace      string `json:"namespace"`
	Pod            string `json:"pod"`
	ServiceAccount string `json:"serviceAccount"`
	Volume         string `json:"volume"`
}

// A Denial is what the rules to come have against a volume.
type Denial struct {
	Subject
	New     bool   `json:"new"` // Today the volume is approved.
	Message string `json:"message"`
}

// An Approval is what the rules of today have against a volume that those to come allow.
type Approval struct {
	Subject
	Message string `json:"message"`
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

// Of asks the API server for nodes, and for the pods of a namespace, or of all for an empty one, and reports.
func (c Change) Of(ctx context.Context, api client.Reader, namespace string) (Report, error) {
	nodes := map[string]*corev1.Node{}
	all := client.ListOptions{FieldSelector: fields.Everything()}
	empty := func() client.ObjectList { return &corev1.NodeList{} }
	err := each(ctx, api, empty, all, func(node *corev1.Node) { nodes[node.Name] = node })
	report := Report{Namespace: namespace, Denials: []Denial{}, Approvals: []Approval{}}
	if apierrors.IsForbidden(err) {
		report.Warnings = append(report.Warnings,
			"the nodes may not be listed: IPs of pods that only spec.podCIDRs prove count as not proved")
	} else if err != nil {
		return Report{}, fmt.Errorf("list the nodes: %w", err)
	}
	those := client.ListOptions{Namespace: namespace, FieldSelector: running()}
	err = each(ctx, api, func() client.ObjectList { return &corev1.PodList{} }, those, func(pod *corev1.Pod) {
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
func each[T runtime.Object](
	ctx context.Context, api client.Reader, empty func() client.ObjectList, those client.ListOptions, do func(T),
) error {
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := empty()
		page := those
		page.Limit, page.Continue = options.Limit, options.Continue
		page.Raw = &metav1.ListOptions{ResourceVersion: options.ResourceVersion}
		return list, api.List(ctx, list, &page)
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
	volumes := append(c.Today.Volumes(pod), c.Today.Natives(pod)...)
	if len(volumes) == 0 || decide.Dead(pod) != "" {
		return
	}
	r.Pods++
	for _, v := range volumes {
		r.Volumes++
		_, today := c.Today.Allowed(v, pod, node)
		_, then := c.Then.Allowed(v, pod, node)
		switch {
		case then != nil:
			r.Denials = append(r.Denials, Denial{subject(pod, v), today == nil, then.Error()})
		case today != nil:
			r.Approvals = append(r.Approvals, Approval{subject(pod, v), today.Error()})
		}
	}
}

func subject(pod *corev1.Pod, v decide.Volume) Subject {
	return Subject{Namespace: pod.Namespace, Pod: pod.Name, ServiceAccount: pod.Spec.ServiceAccountName, Volume: v.Name}
}
