package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/mayfly-csi/mayfly/signer/controller/authority"
	"github.com/mayfly-csi/mayfly/signer/controller/cluster"
	"github.com/mayfly-csi/mayfly/signer/controller/podcertificaterequests"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// sign has the manager sign PodCertificateRequests, and keep the CAs for that.
func sign(ctx context.Context, m manager.Manager, decider cluster.Decider, o options, log *slog.Logger) error {
	self := &authenticationv1.SelfSubjectReview{}
	if err := m.GetClient().Create(ctx, self); err != nil {
		return fmt.Errorf("ask the API server who the controller is: %w", err)
	}
	events := m.GetEventRecorder("mayfly-controller")
	keeper, err := authority.New(authority.Config{
		Names: o.authorities(), Plan: authority.DefaultPlan(), API: m.GetClient(), Live: m.GetAPIReader(), Events: events, Metrics: metrics.Registry, Log: log,
	})
	if err != nil {
		return err
	}
	if err := keeper.Add(m); err != nil {
		return err
	}
	s, err := podcertificaterequests.New(podcertificaterequests.Config{
		Decider: decider, Requests: m.GetClient(), Self: self.Status.UserInfo.Username,
		CAs: authority.Reader{Names: o.authorities(), Secrets: m.GetClient()}, OwnCA: o.OwnCA,
		Events: events, Metrics: metrics.Registry, Log: log,
	})
	if err != nil {
		return err
	}
	return s.Add(m)
}

// authorities are the names of the CAs.
func (o *options) authorities() authority.Names {
	return authority.Names{Namespace: o.CANamespace, Own: o.OwnCA, Domain: spec.Driver}
}

// cached is what the manager's cache holds of the objects that it watches.
func cached(o options) map[client.Object]cache.ByObject {
	all := map[client.Object]cache.ByObject{&cmapi.CertificateRequest{}: {Transform: func(object any) (any, error) {
		if cr, ok := object.(*cmapi.CertificateRequest); ok && podcertificaterequests.Keep(cr) {
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
