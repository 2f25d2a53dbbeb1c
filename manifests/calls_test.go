package manifests_test

import (
	"slices"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/startup"
)

const nodeKey = "authentication.kubernetes.io/node-name"

// plugin is the node plugin of node-a, decider the controller, editor who may edit the namespace, and node the node itself.
func plugin() *user.DefaultInfo {
	return on("node-a", "system:serviceaccount:mayfly-system:mayfly")
}

func decider() *user.DefaultInfo {
	return on("node-c", "system:serviceaccount:mayfly-system:mayfly-controller")
}

// on is a service account with a token of a pod on a node.
func on(node, account string) *user.DefaultInfo {
	return &user.DefaultInfo{Name: account, Extra: map[string][]string{nodeKey: {node}}}
}

func editor() *user.DefaultInfo { return &user.DefaultInfo{Name: "alice"} }

func node() *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:node:node-a", Groups: []string{"system:nodes"}}
}

// request is a CertificateRequest of a user's, as cert-manager's webhook leaves it.
func request(of *user.DefaultInfo, changes ...func(*cmapi.CertificateRequest)) *cmapi.CertificateRequest {
	cr := &cmapi.CertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "cert-manager.io/v1", Kind: "CertificateRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "x", Namespace: "shop",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
			Annotations:     map[string]string{signer.VolumeAnnotation: "csi-1"},
		},
		Spec: cmapi.CertificateRequestSpec{
			Username: of.Name, Extra: of.Extra, Request: []byte("csr"), IssuerRef: cmmeta.IssuerReference{Name: "ca"},
		},
	}
	for _, change := range changes {
		change(cr)
	}
	return cr
}

type changeRequest = func(*cmapi.CertificateRequest)

func annotated(key string) changeRequest {
	return func(cr *cmapi.CertificateRequest) { cr.Annotations[key] = "x" }
}

func labelled(key string) changeRequest {
	return func(cr *cmapi.CertificateRequest) { cr.Labels = map[string]string{key: "x"} }
}

func owned(change func(*metav1.OwnerReference)) changeRequest {
	return func(cr *cmapi.CertificateRequest) { change(&cr.OwnerReferences[0]) }
}

func condition(kind cmapi.CertificateRequestConditionType) changeRequest {
	return func(cr *cmapi.CertificateRequest) {
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{
			Type: kind, Status: cmmeta.ConditionTrue,
		})
	}
}

func approved(cr *cmapi.CertificateRequest) { condition(cmapi.CertificateRequestConditionApproved)(cr) }

func noOwnDeletion(o *metav1.OwnerReference) { o.BlockOwnerDeletion = new(true) }

func ownerAsControl(o *metav1.OwnerReference) { o.Controller = new(true) }

func asItIs(*cmapi.CertificateRequest) {}

func withoutOwner(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }

func withFinalizer(cr *cmapi.CertificateRequest) { cr.Finalizers = []string{"example.org/never"} }

func anotherIssuer(cr *cmapi.CertificateRequest) { cr.Spec.IssuerRef.Group = "pki.example.org" }

func anotherCSR(cr *cmapi.CertificateRequest) { cr.Spec.Request = []byte("another") }

func withCertificate(cr *cmapi.CertificateRequest) { cr.Status.Certificate = []byte("x") }

func withCACert(cr *cmapi.CertificateRequest) { cr.Status.CA = []byte("x") }

func deniedAndMendable(cr *cmapi.CertificateRequest) {
	condition(cmapi.CertificateRequestConditionDenied)(cr)
	condition(signer.Approvable)(cr)
}

// requests, podRequests and bundleObjects are resources.
func requests() schema.GroupVersionResource {
	return cmapi.SchemeGroupVersion.WithResource("certificaterequests")
}

func podRequests() schema.GroupVersionResource {
	return certificatesv1.SchemeGroupVersion.WithResource("podcertificaterequests")
}

func bundleObjects() schema.GroupVersionResource {
	return certificatesv1.SchemeGroupVersion.WithResource("clustertrustbundles")
}

func create(who *user.DefaultInfo, changes ...changeRequest) call {
	return call{operation: admission.Create, resource: requests(), object: request(who, changes...), who: who}
}

// change is an update of a request of someone.
func change(who, of *user.DefaultInfo, before, after []changeRequest) call {
	return call{
		operation: admission.Update, resource: requests(), who: who,
		old: request(of, before...), object: request(of, append(slices.Clone(before), after...)...),
	}
}

func status(who, of *user.DefaultInfo, after ...changeRequest) call {
	c := change(who, of, nil, after)
	c.subresource = "status"
	return c
}

// waiting has a request wait for its issuer, for one reason and then for another.
func waiting(c call, before, after string) call {
	for o, reason := range map[runtime.Object]string{c.old: before, c.object: after} {
		cr, _ := o.(*cmapi.CertificateRequest)
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{
			Type: cmapi.CertificateRequestConditionReady, Status: cmmeta.ConditionFalse, Reason: reason,
		})
	}
	return c
}

func remove(who, of *user.DefaultInfo) call {
	return call{operation: admission.Delete, resource: requests(), old: request(of), who: who}
}

// podRequest is a PodCertificateRequest of node-a.
func podRequest(who *user.DefaultInfo, change func(*certificatesv1.PodCertificateRequest)) call {
	pcr := &certificatesv1.PodCertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "PodCertificateRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "x", Namespace: "shop",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: signer.PodCertificateSigner, NodeName: "node-a", PodName: "web", PodUID: "1",
		},
	}
	change(pcr)
	return call{operation: admission.Create, resource: podRequests(), object: pcr, who: who}
}

func removePodRequest(who *user.DefaultInfo, signerName string) call {
	made := podRequest(who, func(pcr *certificatesv1.PodCertificateRequest) { pcr.Spec.SignerName = signerName })
	return call{operation: admission.Delete, resource: podRequests(), old: made.object, who: who}
}

func bundle(signerName string, finalizers ...string) runtime.Object {
	return &certificatesv1.ClusterTrustBundle{
		TypeMeta:   metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "ClusterTrustBundle"},
		ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: finalizers},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signerName},
	}
}

func publish(who *user.DefaultInfo, now, before runtime.Object) call {
	c := call{operation: admission.Create, resource: bundleObjects(), object: now, who: who}
	if before != nil {
		c.operation, c.old = admission.Update, before
	}
	return c
}

func event(change func(*eventsv1.Event)) *eventsv1.Event {
	e := &eventsv1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "shop"},
		Regarding:  corev1.ObjectReference{Kind: "Pod", Name: "web"}, ReportingController: "mayfly-controller", ReportingInstance: "node-a",
	}
	change(e)
	return e
}

func tell(who *user.DefaultInfo, change func(*eventsv1.Event)) call {
	return call{operation: admission.Create, resource: eventsv1.SchemeGroupVersion.WithResource("events"), object: event(change), who: who}
}

func retell(who *user.DefaultInfo, of string) call {
	about := func(e *eventsv1.Event) { e.ReportingController = of }
	return call{operation: admission.Update, resource: eventsv1.SchemeGroupVersion.WithResource("events"), object: event(about), old: event(about), who: who}
}

func ranges(who *user.DefaultInfo, now, before []string) call {
	of := func(cidrs []string) runtime.Object {
		return &corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: cidrs},
		}
	}
	return call{operation: admission.Update, resource: corev1.SchemeGroupVersion.WithResource("nodes"), object: of(now), old: of(before), who: who}
}

// nodeChange is a change of a node that has the start-up taint and another one.
func nodeChange(who *user.DefaultInfo, change func(*corev1.Node)) call {
	old := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{"zone": "a"}, Annotations: map[string]string{"note": "a"}},
		Spec: corev1.NodeSpec{
			PodCIDR: "10.0.0.0/24", PodCIDRs: []string{"10.0.0.0/24"}, ProviderID: "metal://a",
			Taints: []corev1.Taint{{Key: startup.Taint, Effect: corev1.TaintEffectNoSchedule}, {Key: "gpu", Effect: corev1.TaintEffectNoExecute}},
		},
	}
	now := old.DeepCopy()
	change(now)
	return call{operation: admission.Update, resource: corev1.SchemeGroupVersion.WithResource("nodes"), object: now, old: old, who: who}
}
