package pod

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/api"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// RenewAt is the pod annotation that asks for new certificates: those of the pod's volumes that were received before
// this time (RFC 3339) are renewed at it.
const RenewAt = spec.Prefix + "renew-at"

// Renewals calls renew for every pod of the node that has the annotation, and again when it changes, until ctx ends:
// with the zero time when it was removed, with an error when it can't be parsed. It calls fail when the pods can't be
// watched, and continues.
//
// It uses one watch of the metadata of the node's pods, for which the API server keeps an index by node
// (kubernetes pkg/registry/core/pod/strategy.go, NodeNameTriggerFunc).
func (r *Reader) Renewals(
	ctx context.Context, renew func(pod signer.Pod, at time.Time, err error), fail func(error),
) error {
	pods := r.meta.Resource(podResource())
	onNode := fields.OneTermEqualSelector("spec.nodeName", r.node).String()
	a := annotations{renew: renew, last: map[string]annotation{}}
	informer, err := api.Inform(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = onNode
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = onNode
			return pods.Watch(ctx, o)
		},
	}, &metav1.PartialObjectMetadata{}, api.Handler{Set: a.set, Unset: a.unset, Fail: fail})
	if err != nil {
		return err
	}
	if err := informer.SetTransform(onlyAnnotation); err != nil {
		return err
	}
	informer.RunWithContext(ctx)
	return nil
}

// RenewAt reads when the annotation of one pod asks for new certificates; zero: it does not, or is invalid. It is one
// list of the metadata of this pod.
func (r *Reader) RenewAt(ctx context.Context, of signer.Pod) (at time.Time, invalid, err error) {
	pods := r.meta.Resource(podResource()).Namespace(of.Namespace)
	byName := fields.OneTermEqualSelector(metav1.ObjectNameField, of.Name).String()
	found, err := pods.List(ctx, metav1.ListOptions{FieldSelector: byName, ResourceVersion: "0"})
	if err != nil {
		return at, nil, fmt.Errorf("read pod %s/%s: %w", of.Namespace, of.Name, err)
	}
	for _, p := range found.Items {
		if text, ok := p.Annotations[RenewAt]; ok && string(p.UID) == of.UID {
			at, invalid = parse(message.Cut(text, longestTime))
		}
	}
	return at, invalid, nil
}

func podResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Version: "v1", Resource: "pods"}
}

// longestTime is more bytes than a time has (RFC 3339).
const longestTime = 64

// onlyAnnotation reduces a pod to its identity and the annotation.
func onlyAnnotation(object any) (any, error) {
	p, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	kept := metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion}
	if text, there := p.Annotations[RenewAt]; there { // A text that was cut is no time.
		kept.Annotations = map[string]string{RenewAt: message.Cut(text, longestTime)}
	}
	return &metav1.PartialObjectMetadata{TypeMeta: p.TypeMeta, ObjectMeta: kept}, nil
}

// annotations holds the annotations of the node's pods, by namespace and name. The informer calls it from one
// goroutine.
type annotations struct {
	renew func(pod signer.Pod, at time.Time, err error)
	last  map[string]annotation
}

type annotation struct{ uid, text string }

// set handles a pod that was added or changed.
func (a annotations) set(object any) {
	p, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return
	}
	name, now := p.Namespace+"/"+p.Name, annotation{string(p.UID), p.Annotations[RenewAt]}
	last := a.last[name]
	if last.text != "" && last.uid != now.uid { // Another pod of that name; the first one's deletion was missed.
		a.report(p, annotation{last.uid, ""})
	}
	if last != now && now.text+last.text != "" {
		a.report(p, now)
	}
}

// unset handles a pod that was deleted.
func (a annotations) unset(object any) {
	p, ok := object.(*metav1.PartialObjectMetadata)
	if ok && a.last[p.Namespace+"/"+p.Name].text != "" {
		a.report(p, annotation{string(p.UID), ""})
	}
}

// report records the annotation of a pod and calls renew.
func (a annotations) report(p *metav1.PartialObjectMetadata, now annotation) {
	name, pod := p.Namespace+"/"+p.Name, signer.Pod{Namespace: p.Namespace, Name: p.Name, UID: now.uid}
	if now.text == "" {
		delete(a.last, name)
		a.renew(pod, time.Time{}, nil)
		return
	}
	a.last[name] = now
	at, err := parse(now.text)
	a.renew(pod, at, err)
}

// parse parses the annotation.
func parse(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		const format = "annotation %s is %q, which is not a time such as 2026-01-31T12:00:00Z (RFC 3339)"
		return time.Time{}, fmt.Errorf(format, RenewAt, text)
	}
	return at, nil
}
