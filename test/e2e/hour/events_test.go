package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Each Event that is not true of the certificates and requests is found, and no other.
func TestJudge(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	at := func(minutes float64) time.Time { return noon.Add(time.Duration(minutes * float64(time.Minute))) }
	const name = "v0.silent-0.hour.svc"
	l := newLedger()
	l.volumes[name] = &history{certificates: []certificate{{signed: at(0), seen: at(0.1), end: at(10)}, {signed: at(20), seen: at(20.1), end: at(30)}}}
	l.requests["first"] = &request{volume: name, created: at(-1), signed: at(0)}
	l.requests["second"] = &request{volume: name, created: at(7), signed: at(20)}
	l.requests["other"] = &request{volume: "v1.silent-0.hour.svc", created: at(7)}
	const waiting = "not signed yet: CertificateRequest hour/second: approved, waiting for Signer silent"
	for what, row := range map[string]struct {
		reason  string
		at      time.Time
		message string
		untrue  bool
	}{
		"ended":                     {"CertificateExpired", at(10), "the pod's certificate ended at 2026-06-01T12:10:00Z, before it was renewed; a request for the next one is under way", false},
		"ended, with a reason":      {"CertificateExpired", at(10), "the pod's certificate ended at 2026-06-01T12:10:00Z, before it was renewed; " + waiting + "; the next try is at 2026-06-01T12:11:00Z", false},
		"ended at another time":     {"CertificateExpired", at(10), "the pod's certificate ended at 2026-06-01T12:10:01Z, before it was renewed; a request for the next one is under way", true},
		"told late":                 {"CertificateExpired", at(11), "the pod's certificate ended at 2026-06-01T12:10:00Z, before it was renewed; a request for the next one is under way", true},
		"told before":               {"CertificateExpired", at(9), "the pod's certificate ended at 2026-06-01T12:10:00Z, before it was renewed; a request for the next one is under way", true},
		"no request is under way":   {"CertificateExpired", at(30), "the pod's certificate ended at 2026-06-01T12:30:00Z, before it was renewed; a request for the next one is under way", true},
		"renewed":                   {"CertificateRenewed", at(20), "the certificate was renewed; the one before ended at 2026-06-01T12:10:00Z, the new one ends at 2026-06-01T12:30:00Z", false},
		"not renewed yet":           {"CertificateRenewed", at(15), "the certificate was renewed; the one before ended at 2026-06-01T12:10:00Z, the new one ends at 2026-06-01T12:30:00Z", true},
		"renewed by another":        {"CertificateRenewed", at(20), "the certificate was renewed; the one before ended at 2026-06-01T12:10:00Z, the new one ends at 2026-06-01T12:31:00Z", true},
		"waits":                     {"CertificateNotRenewed", at(8), waiting + "; the next try is at 2026-06-01T12:09:00Z; the pod keeps its certificate, which ends at 2026-06-01T12:10:00Z", false},
		"has waited":                {"CertificateNotRenewed", at(12), waiting + "; the next try is at 2026-06-01T12:13:00Z; the pod keeps its certificate, which ended at 2026-06-01T12:10:00Z", false},
		"the past as to come":       {"CertificateNotRenewed", at(12), waiting + "; the next try is at 2026-06-01T12:13:00Z; the pod keeps its certificate, which ends at 2026-06-01T12:10:00Z", true},
		"a try that is over":        {"CertificateNotRenewed", at(12), waiting + "; the next try is at 2026-06-01T12:11:00Z; the pod keeps its certificate, which ended at 2026-06-01T12:10:00Z", true},
		"has another certificate":   {"CertificateNotRenewed", at(22), waiting + "; the next try is at 2026-06-01T12:23:00Z; the pod keeps its certificate, which ended at 2026-06-01T12:10:00Z", true},
		"a request that was signed": {"CertificateNotRenewed", at(8), "not signed yet: CertificateRequest hour/first: waiting for its approval; the next try is at 2026-06-01T12:09:00Z; the pod keeps its certificate, which ends at 2026-06-01T12:10:00Z", true},
		"another volume's request":  {"CertificateNotRenewed", at(8), "not signed yet: CertificateRequest hour/other: waiting for its approval; the next try is at 2026-06-01T12:09:00Z; the pod keeps its certificate, which ends at 2026-06-01T12:10:00Z", true},
		"another issuer":            {"CertificateNotRenewed", at(8), "not signed yet: CertificateRequest hour/second: approved, waiting for Signer slow; the next try is at 2026-06-01T12:09:00Z; the pod keeps its certificate, which ends at 2026-06-01T12:10:00Z", true},
		"something else":            {"UnusualChain", at(8), "what", true},
	} {
		told, err := l.judge(corev1.Event{
			Reason: row.reason, Message: "volume v0: " + row.message, LastTimestamp: metav1.NewTime(row.at),
			Source: corev1.EventSource{Component: "csi.mayfly.dev"}, InvolvedObject: corev1.ObjectReference{Name: "silent-0"},
		})
		if !told || (err != nil) != row.untrue {
			t.Errorf("%s: %v", what, err)
		}
	}
}
