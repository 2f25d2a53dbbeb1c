// Package event sends warnings and notes to a pod's author, as Events of the pod: `kubectl describe pod` shows them.
package event

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/api"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// A Writer writes Events to the API server, without a limit of its own.
type Writer struct {
	api    rest.Interface
	driver string
	node   string
}

// New makes a writer that names the driver and its node as the source.
func New(config *rest.Config, driver, node string) (*Writer, error) {
	core, err := api.Core(config)
	if err != nil {
		return nil, err
	}
	return &Writer{api: core, driver: driver, node: node}, nil
}

// Send writes an Event. A message that the API server would refuse as too long is cut.
func (w *Writer) Send(ctx context.Context, pod signer.Pod, e Event) error {
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "mayfly-", Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID),
		},
		Type:                e.Type,
		Reason:              e.Reason,
		Message:             message.Cut(e.Message, message.Longest),
		Source:              corev1.EventSource{Component: w.driver, Host: w.node},
		ReportingController: w.driver,
		ReportingInstance:   w.node,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
	}
	if err := w.api.Post().Namespace(pod.Namespace).Resource("events").Body(event).Do(ctx).Error(); err != nil {
		return fmt.Errorf("write an event for pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
