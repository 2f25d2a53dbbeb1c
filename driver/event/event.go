// Package event sends warnings and notes to a pod's author, as Events of the pod: `kubectl describe pod` shows them.
package event

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// A Writer writes Events to the API server, without a limit of its own.
type Writer struct {
	events object.Client[podEvent]
	driver string
	node   string
}

// New makes a writer that names the driver and its node as the source.
func New(config *rest.Config, driver, node string) (*Writer, error) {
	core, err := object.Connect(config, schema.GroupVersion{Version: "v1"}, nil)
	if err != nil {
		return nil, err
	}
	return &Writer{events: object.New[podEvent](core, "events"), driver: driver, node: node}, nil
}

// A podEvent is an Event as the API server takes it (k8s.io/api core/v1).
type podEvent struct {
	Metadata            meta        `json:"metadata"`
	InvolvedObject      involved    `json:"involvedObject"`
	Type                string      `json:"type"`
	Reason              string      `json:"reason"`
	Message             string      `json:"message"`
	Source              source      `json:"source"`
	ReportingController string      `json:"reportingComponent"`
	ReportingInstance   string      `json:"reportingInstance"`
	FirstTimestamp      metav1.Time `json:"firstTimestamp"`
	LastTimestamp       metav1.Time `json:"lastTimestamp"`
	Count               int         `json:"count"`
}

type meta struct {
	GenerateName string `json:"generateName"`
	Namespace    string `json:"namespace"`
}

type involved struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type source struct {
	Component string `json:"component"`
	Host      string `json:"host"`
}

// Send writes an Event. A message that the API server would refuse as too long is cut.
func (w *Writer) Send(ctx context.Context, pod signer.Pod, e Event) error {
	now := metav1.NewTime(time.Now())
	event := &podEvent{
		Metadata: meta{GenerateName: "mayfly-", Namespace: pod.Namespace},
		InvolvedObject: involved{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
		},
		Type:                e.Type,
		Reason:              e.Reason,
		Message:             message.Cut(e.Message, message.Longest),
		Source:              source{Component: w.driver, Host: w.node},
		ReportingController: w.driver,
		ReportingInstance:   w.node,
		FirstTimestamp:      now,
		LastTimestamp:       now,
		Count:               1,
	}
	if _, err := w.events.In(pod.Namespace).Create(ctx, event); err != nil {
		return fmt.Errorf("write an event for pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
