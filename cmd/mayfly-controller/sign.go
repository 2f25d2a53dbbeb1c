package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/mayfly-csi/mayfly/signer/controller/audit"
	"github.com/mayfly-csi/mayfly/signer/controller/authority"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/podcertificaterequests"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// An identity is the user that the controller is for the API server.
type identity authenticationv1.UserInfo

// whoAmI asks the API server.
func whoAmI(ctx context.Context, api *rest.Config) (identity, error) {
	client, err := kubernetes.NewForConfig(api)
	if err != nil {
		return identity{}, fmt.Errorf("connect to the API server: %w", err)
	}
	self, err := client.AuthenticationV1().SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return identity{}, fmt.Errorf("ask the API server who the controller is: %w", err)
	}
	return identity(self.Status.UserInfo), nil
}

// sign makes the manager sign PodCertificateRequests, and keep the CAs for that.
func sign(
	m manager.Manager, decider cluster.Decider, record *audit.Log, holder *audit.Holder, o options, self string,
	log *slog.Logger,
) error {
	if err := served(m.GetRESTMapper()); err != nil {
		return err
	}
	events := m.GetEventRecorder("mayfly-controller")
	keeper, err := authority.New(authority.Config{
		Names: o.authorities(), Plan: authority.DefaultPlan(), API: m.GetClient(), Live: m.GetAPIReader(),
		Events: events, Metrics: metrics.Registry, Log: log,
	})
	if err != nil {
		return err
	}
	if err := keeper.Add(m); err != nil {
		return err
	}
	return podcertificaterequests.New(podcertificaterequests.Config{
		Decider: decider, Requests: m.GetClient(), Self: self,
		CAs: authority.Reader{Names: o.authorities(), Secrets: m.GetClient()}, OwnCA: o.OwnCA,
		Audit: record, Holder: holder, Events: events, Metrics: metrics.Registry, Log: log,
	}).Add(m)
}

// served returns an error unless the API server has what is signed, and where the CAs are published.
func served(mapper meta.RESTMapper) error {
	for _, kind := range []string{"PodCertificateRequest", "ClusterTrustBundle"} {
		of := certificatesv1.SchemeGroupVersion.WithKind(kind)
		switch _, err := mapper.RESTMapping(of.GroupKind(), of.Version); {
		case meta.IsNoMatchError(err):
			return fmt.Errorf("--pod-certificates needs %ss of certificates.k8s.io/v1, which Kubernetes has from 1.37 "+
				"on, and this API server does not serve them: %w", kind, err)
		case err != nil:
			return fmt.Errorf("ask the API server whether it has %ss: %w", kind, err)
		}
	}
	return nil
}

// authorities returns the names of the CAs.
func (o *options) authorities() authority.Names {
	return authority.Names{Namespace: o.CANamespace, Own: o.OwnCA, Domain: spec.Driver}
}

// cached returns what the manager's cache holds of the objects that it watches: of CertificateRequests those that are
// decided on, and those of self.
func cached(o options, self string) map[client.Object]cache.ByObject {
	all := map[client.Object]cache.ByObject{&cmapi.CertificateRequest{}: {Transform: func(object any) (any, error) {
		if cr, ok := object.(*cmapi.CertificateRequest); ok && podcertificaterequests.Keep(cr, self) {
			cr.ManagedFields = nil
			return cr, nil
		}
		return o.callers().Trim(object)
	}}}
	if o.PodCertificates {
		all[&certificatesv1.PodCertificateRequest{}] = cache.ByObject{Transform: podcertificaterequests.Trim}
		maps.Copy(all, o.authorities().Cache())
	}
	return all
}
