package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/certificaterequests"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

const nodePluginUser, decisions = "system:serviceaccount:mayfly-system:mayfly", 10000

// rules returns those of the controller.
func rules() decide.Rules {
	return decide.Rules{
		Drivers: []spec.DriverName{{Name: spec.Driver}}, Policy: policy.Policy{ClusterDomain: "cluster.local"},
	}
}

// profileDecision records how the controller decides on CertificateRequests, from its cache to the patch, without an
// API server.
func profileDecision(ctx context.Context, prefix string) error {
	api, err := newObjects()
	if err != nil {
		return err
	}
	decider := certificaterequests.New(certificaterequests.Config{
		Callers:  certificaterequests.Callers{NodePlugin: nodePluginUser},
		Decider:  cluster.Decider{Live: api, Rules: rules()},
		Requests: api, Events: api, Holder: (*audit.Holder)(nil), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	for _, record := range []func(string) (func() error, error){recordCPU, recordRest} {
		end, err := record(prefix)
		if err != nil {
			return err
		}
		if err := decideOn(ctx, decider, api); err != nil {
			return err
		}
		if err := end(); err != nil {
			return err
		}
	}
	return nil
}

// decideOn has some requests decided on, 16 at a time as in the controller.
func decideOn(ctx context.Context, decider *certificaterequests.Controller, api *objects) error {
	var group errgroup.Group
	group.SetLimit(16)
	for range decisions {
		group.Go(func() error {
			_, err := decider.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(api.request)})
			return err
		})
	}
	return group.Wait()
}

// objects are an API server's, which never change. Whatever is not approved ends the profile.
type objects struct {
	client.Client
	cluster.Events // nil: they tell of denials alone.

	pod     *corev1.Pod
	request *cmapi.CertificateRequest
}

// newObjects are a pod with a volume, and the request that the node plugin makes for it.
func newObjects() (*objects, error) {
	attributes := map[string]string{spec.Prefix + "issuer-name": "ca", spec.Prefix + "dns-names": "web.shop.svc"}
	source := &corev1.CSIVolumeSource{Driver: spec.Driver, VolumeAttributes: attributes}
	o := &objects{pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec: corev1.PodSpec{NodeName: "node-a", ServiceAccountName: "web", Volumes: []corev1.Volume{
			{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: source}},
		}},
	}}
	v, err := spec.Parse(rules().Volumes(o.pod)[0].Asked, spec.Defaults{})
	if err != nil {
		return nil, err
	}
	key, err := request.NewKey(v.Key)
	if err != nil {
		return nil, err
	}
	csr, err := v.CSR(key)
	if err != nil {
		return nil, err
	}
	asked := v.Request("attempt", csr)
	o.request = &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-attempt", ResourceVersion: "1", CreationTimestamp: metav1.Now(),
			Annotations:     map[string]string{signer.VolumeAnnotation: decide.VolumeID(o.pod, "tls")},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "uid-1"}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Username: nodePluginUser, Extra: map[string][]string{"authentication.kubernetes.io/node-name": {"node-a"}},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: asked.CSR}), IsCA: asked.IsCA,
			Duration:  &metav1.Duration{Duration: asked.Duration},
			IssuerRef: cmmeta.IssuerReference{Name: asked.Issuer.Name, Kind: asked.Issuer.Kind, Group: asked.Issuer.Group},
		},
	}
	for _, u := range asked.Usages {
		o.request.Spec.Usages = append(o.request.Spec.Usages, cmapi.KeyUsage(u))
	}
	return o, nil
}

// Get implements [client.Client].
func (o *objects) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	switch into := into.(type) {
	case *corev1.Pod:
		o.pod.DeepCopyInto(into)
	case *cmapi.CertificateRequest:
		o.request.DeepCopyInto(into)
	case *corev1.Node:
		into.Name = key.Name
	default:
		return fmt.Errorf("get %s: a %T was not expected", key, into)
	}
	return nil
}

// Status implements [client.Client].
func (o *objects) Status() client.SubResourceWriter { return statusWriter{} }

// A statusWriter makes the text of a patch, and sends it nowhere.
type statusWriter struct{ client.SubResourceWriter }

// Patch implements [client.SubResourceWriter].
func (statusWriter) Patch(
	_ context.Context, o client.Object, patch client.Patch, _ ...client.SubResourcePatchOption,
) error {
	cr, ok := o.(*cmapi.CertificateRequest)
	if !ok || !slices.ContainsFunc(cr.Status.Conditions, func(c cmapi.CertificateRequestCondition) bool {
		return c.Type == cmapi.CertificateRequestConditionApproved
	}) {
		return fmt.Errorf("%T %s was not approved", o, o.GetName())
	}
	_, err := patch.Data(o)
	return err
}
