package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/test/forge"
)

// A memory is what the greatest of the controllers takes, in bytes.
type memory struct {
	Pods     int     `json:"pods"`
	Resident float64 `json:"resident"` // After the work.
	Peak     float64 `json:"peak"`     // From its start on.
}

// memory fills the cluster, has the controllers start anew, so that they read it all at once, and work; and is what they took.
func (s *site) memory(ctx context.Context, modes []*mode, o options) (memory, error) {
	s.tell("filling the cluster with %d pods and twice as many requests", o.pods)
	if err := s.fill(ctx, modes[0].pods[pod(issuer, 0).Name], o.crowd, o.pods); err != nil {
		return memory{}, err
	}
	filled, err := s.read(ctx)
	if err != nil {
		return memory{}, err
	}
	for _, args := range [][]string{{"rollout", "restart"}, {"rollout", "status", "--timeout=2m"}} {
		if _, err := s.Kubectl(ctx, append(args, "--namespace", system, "deployment/mayfly-controller")...); err != nil {
			return memory{}, fmt.Errorf("restart the controllers: %w", err)
		}
	}
	for _, m := range modes {
		if _, err := m.crowd(ctx, o.crowd); err != nil {
			return memory{}, err
		}
	}
	restarted, err := s.read(ctx)
	return memory{o.pods, max(filled.Resident, restarted.Resident), max(filled.Peak, restarted.Peak)}, err
}

// fill makes pods with volumes until there are n, and as many requests of someone else, of either kind, for one of them. cert-manager signs those that are its own.
func (s *site) fill(ctx context.Context, of *corev1.Pod, have, n int) error {
	stub, err := forge.PodCertificate(of, "", "1", "1")
	if err != nil {
		return err
	}
	stub.Spec.SignerName = "example.org/modes"
	cr, err := forge.Request(of, "")
	if err != nil {
		return err
	}
	return each(ctx, n, func(ctx context.Context, i int) error {
		if err := s.other(ctx, cr.DeepCopy(), stub.DeepCopy(), i); err != nil || i < have {
			return err
		}
		return s.makePod(ctx, pod(issuer, i))
	})
}

// other makes the i-th request of either kind.
func (s *site) other(ctx context.Context, cr *cmapi.CertificateRequest, pcr *certificatesv1.PodCertificateRequest, i int) error {
	cr.Name = fmt.Sprintf("other-%d", i)
	pcr.Name = cr.Name
	_, err := s.CertManager.CertmanagerV1().CertificateRequests(namespace).Create(ctx, cr, metav1.CreateOptions{})
	_, failed := s.Client.CertificatesV1().PodCertificateRequests(namespace).Create(ctx, pcr, metav1.CreateOptions{})
	return errors.Join(err, failed)
}

// removeAll removes all requests of a kind in the run's namespace.
func (s *site) removeAll(ctx context.Context, resource string) error {
	names, err := s.Kubectl(ctx, "get", resource, "--namespace", namespace, "--output=name", "--ignore-not-found")
	if err != nil {
		return err
	}
	all := strings.Fields(names)
	return each(ctx, len(all), func(ctx context.Context, i int) error {
		_, name, _ := strings.Cut(all[i], "/")
		if resource == "certificaterequests" {
			return ignoreGone(s.CertManager.CertmanagerV1().CertificateRequests(namespace).Delete(ctx, name, metav1.DeleteOptions{}))
		}
		return ignoreGone(s.Client.CertificatesV1().PodCertificateRequests(namespace).Delete(ctx, name, metav1.DeleteOptions{}))
	})
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// read is what the greatest controller on the nodes takes now.
func (s *site) read(ctx context.Context) (found memory, err error) {
	for _, name := range s.Nodes {
		// A process has the first 15 characters of its program's name (proc_pid_status(5)).
		text, err := s.Node(name).Command(ctx, "sh", "-c", "grep -l 'mayfly-controll' /proc/[0-9]*/comm | sed 's/comm$/status/' | xargs -r cat").Output()
		if err != nil {
			return found, fmt.Errorf("read the memory of the controllers on %s: %w", name, err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			var kib float64
			if n, _ := fmt.Sscanf(lines.Text(), "VmRSS: %f kB", &kib); n == 1 {
				found.Resident = max(found.Resident, kib*1024)
			}
			if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %f kB", &kib); n == 1 {
				found.Peak = max(found.Peak, kib*1024)
			}
		}
	}
	if found.Peak == 0 {
		return found, errors.New("read the memory of the controllers: there is none")
	}
	return found, nil
}
