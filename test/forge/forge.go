// Package forge writes the requests of node plugins for whom it pleases, as a thief of their rights can.
package forge

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/certmanager"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Request is the one that a node plugin makes for the first volume of the pod that has a driver, which it may mean or not.
func Request(pod *corev1.Pod, name string) (*cmapi.CertificateRequest, error) {
	v, der, err := derive(pod)
	if err != nil {
		return nil, err
	}
	req := request.New(v, name, der)
	cr := &cmapi.CertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: name, Annotations: certmanager.Object(req).Annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: cmapi.CertificateRequestSpec{
			Request:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: req.CSR}),
			IssuerRef: cmmeta.IssuerReference{Name: req.Issuer.Name, Kind: req.Issuer.Kind, Group: req.Issuer.Group},
			Duration:  &metav1.Duration{Duration: req.Duration}, IsCA: req.IsCA,
		},
	}
	for _, u := range req.Usages {
		cr.Spec.Usages = append(cr.Spec.Usages, cmapi.KeyUsage(u))
	}
	return cr, nil
}

// PodCertificate is the one that a node plugin makes as its node.
func PodCertificate(pod *corev1.Pod, name string, node, account types.UID) (*certificatesv1.PodCertificateRequest, error) {
	v, der, err := derive(pod)
	if err != nil {
		return nil, err
	}
	return &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: signer.PodCertificateSigner,
			PodName:    pod.Name, PodUID: pod.UID,
			NodeName: types.NodeName(pod.Spec.NodeName), NodeUID: node,
			ServiceAccountName: pod.Spec.ServiceAccountName, ServiceAccountUID: account,
			MaxExpirationSeconds:      new(int32(v.Duration.Seconds())),
			StubPKCS10Request:         der,
			UnverifiedUserAnnotations: map[string]string{signer.VolumeAnnotation: v.ID},
		},
	}, nil
}

// Ask is what a node plugin asks a signer for the pod's volume, in an attempt.
func Ask(pod *corev1.Pod, attempt string) (signer.Request, error) {
	v, der, err := derive(pod)
	return request.New(v, attempt, der), err
}

// derive is the first volume of the pod that has a driver, and a signing request for it.
func derive(pod *corev1.Pod) (volume.Volume, []byte, error) {
	asked, err := ask(pod)
	if err != nil {
		return volume.Volume{}, nil, err
	}
	v, err := volume.Parse(asked, volume.Defaults{Defaults: spec.Defaults{TrustDomain: "cluster.local"}})
	if err != nil {
		return v, nil, fmt.Errorf("understand the volume: %w", err)
	}
	key, err := request.NewKey(v.Key)
	if err != nil {
		return v, nil, err
	}
	der, err := v.CSR(key)
	return v, der, err
}

func ask(pod *corev1.Pod) (volume.Asked, error) {
	for _, v := range pod.Spec.Volumes {
		if v.CSI == nil {
			continue
		}
		asked := volume.Asked{Asked: spec.AskedBy(signer.Pod{
			Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), ServiceAccount: pod.Spec.ServiceAccountName, Node: pod.Spec.NodeName,
		}, v.CSI.Driver, v.CSI.VolumeAttributes)}
		asked.ID = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+v.Name))) // As the kubelet's (kubernetes pkg/volume/csi/csi_mounter.go, makeVolumeHandle).
		for _, ip := range pod.Status.PodIPs {
			asked.IPs = append(asked.IPs, ip.IP)
		}
		return asked, nil
	}
	return volume.Asked{}, errors.New("the pod has no volume of a driver")
}
