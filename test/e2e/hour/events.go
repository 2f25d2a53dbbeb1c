package main

import (
	"fmt"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// near is how far apart the program and the node plugin may see the same thing.
	near = 5 * time.Second
	// inForce is how long a node plugin may take to put a certificate in force that was signed: those of half of its volumes are, within a second, when an
	// issuer is no longer silent.
	inForce = 15 * time.Second
	// queued is how long an Event may wait for others: a node sends five a second, and half of an issuer's certificates may end at once.
	queued = 45 * time.Second
)

// What the messages of Events look like.
var (
	ours       = regexp.MustCompile(`^volume (\w+): (.+)$`)
	kubelets   = regexp.MustCompile(`^MountVolume.SetUp failed for volume "(\w+)" : (.+)$`)
	expired    = regexp.MustCompile(`^the pod's certificate ended at (\S+), before it was renewed; (.+)$`)
	renewed    = regexp.MustCompile(`^the certificate was renewed; the one before ended at (\S+), the new one ends at (\S+)$`)
	notRenewed = regexp.MustCompile(`^(.+); the next try is at (\S+); the pod keeps its certificate, which (ends|ended) at (\S+)$`)
	failure    = regexp.MustCompile(`^(.+); the next try is at (\S+)$`)
	waits      = regexp.MustCompile(`CertificateRequest ` + namespace + `/(\S+): (?:waiting for its approval|approved, waiting for (\w+) (\w+))`)
)

// judge returns what is not true of an Event; nil if all of it is. told says that the Event is one of those that the program knows.
func (l *ledger) judge(e corev1.Event) (told bool, err error) {
	of := ours
	var judge func(volume string, at time.Time, message string) error
	switch e.Reason {
	case "CertificateExpired":
		judge = l.judgeExpired
	case "CertificateRenewed":
		judge = l.judgeRenewed
	case "CertificateNotRenewed":
		judge = l.judgeNotRenewed
	case "FailedMount":
		of, judge = kubelets, l.judgeReason
	default:
		if e.Source.Component == "csi.mayfly.dev" {
			return true, errUnknown
		}
		return false, nil
	}
	m := of.FindStringSubmatch(e.Message)
	if m == nil {
		return true, errUnknown
	}
	return true, judge(dnsName(m[1], e.InvolvedObject.Name), e.LastTimestamp.Time, m[2])
}

func (l *ledger) judgeExpired(volume string, at time.Time, message string) error {
	m := expired.FindStringSubmatch(message)
	if m == nil {
		return errUnknown
	}
	end, err := time.Parse(time.RFC3339, m[1])
	if err != nil {
		return err
	}
	if !l.find(volume, end, func(h *history, i int) bool { return !earlier(h.replaced(i), end) }) {
		return fmt.Errorf("no certificate of the volume ended at %s without another one", end)
	}
	if at.Before(end.Truncate(time.Second)) || at.Sub(end) > queued {
		return fmt.Errorf("it was sent at %s", at)
	}
	if m[2] == "a request for the next one is under way" {
		return l.underWay(volume, at)
	}
	why := failure.FindStringSubmatch(m[2])
	if why == nil {
		return errUnknown
	}
	return l.judgeReason(volume, at, why[1])
}

func (l *ledger) judgeRenewed(volume string, at time.Time, message string) error {
	m := renewed.FindStringSubmatch(message)
	if m == nil {
		return errUnknown
	}
	before, failed := time.Parse(time.RFC3339, m[1])
	after, err := time.Parse(time.RFC3339, m[2])
	if err != nil || failed != nil {
		return errUnknown
	}
	follows := func(h *history, i int) bool {
		return i+1 < len(h.certificates) && h.certificates[i+1].end.Equal(after) && h.until(i).Before(at.Add(near))
	}
	if !l.find(volume, before, follows) {
		return fmt.Errorf("no certificate that ended at %s was followed by one that ends at %s", before, after)
	}
	return nil
}

func (l *ledger) judgeNotRenewed(volume string, at time.Time, message string) error {
	m := notRenewed.FindStringSubmatch(message)
	if m == nil {
		return errUnknown
	}
	next, failed := time.Parse(time.RFC3339, m[2])
	end, err := time.Parse(time.RFC3339, m[4])
	if err != nil || failed != nil {
		return errUnknown
	}
	if !l.find(volume, end, func(h *history, i int) bool { return !earlier(h.replaced(i), at.Add(-near)) }) {
		return fmt.Errorf("the volume had another certificate than the one that ends at %s", end)
	}
	if next.Before(at.Add(-near)) {
		return fmt.Errorf("the next try, at %s, was over when that was sent, at %s", next, at)
	}
	if ends := m[3] == "ends"; ends && end.Before(at.Add(-near)) || !ends && end.After(at.Add(near)) {
		return fmt.Errorf("%s at %s is said at %s", m[3], end, at)
	}
	return l.judgeReason(volume, at, m[1])
}

// judgeReason demands that the request that a message names was not signed at a time.
func (l *ledger) judgeReason(volume string, at time.Time, message string) error {
	m := waits.FindStringSubmatch(message)
	if m == nil {
		return errUnknown
	}
	r := l.requests[m[1]]
	switch {
	case r == nil:
		return fmt.Errorf("there was no request %s", m[1])
	case r.volume != volume:
		return fmt.Errorf("request %s is of volume %s", m[1], r.volume)
	case r.created.After(at), earlier(r.signed, at.Add(-inForce)):
		return fmt.Errorf("request %s was created at %s and signed at %s", m[1], r.created, r.signed)
	case m[2] != "" && m[2]+" "+m[3] != issuerTitle(podOf(volume)):
		return fmt.Errorf("request %s waits for another issuer", m[1])
	}
	return nil
}

// underWay demands that a request of the volume waited to be signed at a time, or that its certificate was not in force yet.
func (l *ledger) underWay(volume string, at time.Time) error {
	for _, r := range l.requests {
		if r.volume == volume && !r.created.After(at) && !earlier(r.signed, at.Add(-inForce)) {
			return nil
		}
	}
	return fmt.Errorf("no request was under way")
}

// earlier says whether something was seen before a time.
func earlier(seen, t time.Time) bool { return !seen.IsZero() && seen.Before(t) }
