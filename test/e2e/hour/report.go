package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gonum.org/v1/gonum/stat"
)

// latest is how late a renewal of the healthy issuer may begin, in seconds.
const latest = 10

var errUnknown = errors.New("the program does not know this message")

// A summary is what the volumes of one issuer have seen.
type summary struct {
	volumes, certificates int
	ended                 int       // Certificates that ended before the next one was signed.
	looks, expired        int       // At files, and of these at those whose certificate had ended.
	late                  []float64 // How much later than after two thirds of the time from its receipt each was asked for again, in seconds.
}

// report prints what there was to see, and returns what should not have been.
func (l *ledger) report(w io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]*summary{healthy: {}, slow: {}, silent: {}}
	for _, name := range slices.Sorted(maps.Keys(l.volumes)) {
		all[issuerOf(name)].add(l, name)
	}
	l.show(w, all)
	return errors.Join(l.judgeHealthy(all[healthy]), l.judgeEvents(w), l.judgeSilence())
}

func (s *summary) add(l *ledger, volume string) {
	h := l.volumes[volume]
	s.volumes++
	s.looks += h.looks
	s.expired += h.expired
	s.certificates += len(h.certificates)
	for i, c := range h.certificates {
		if until := h.until(i); l.ranUntil(volume).After(c.end) && !earlier(until, c.end) {
			s.ended++
		}
		due := c.signed.Add(c.end.Sub(c.signed) * 2 / 3)
		if next, ok := l.next(volume, c.signed); ok {
			s.late = append(s.late, next.Sub(due).Seconds())
		}
	}
}

// next is when the volume's first request after a time was created.
func (l *ledger) next(volume string, t time.Time) (next time.Time, ok bool) {
	for _, r := range l.requests {
		if r.volume == volume && r.created.After(t) && (!ok || r.created.Before(next)) {
			next, ok = r.created, true
		}
	}
	return next, ok
}

// ranUntil is until when at least the volume's pod ran: a newcomer is deleted as soon as it runs.
func (l *ledger) ranUntil(volume string) time.Time {
	if strings.HasPrefix(podOf(volume), healthy+"-new") {
		return time.Time{}
	}
	return l.ended
}

// podOf is the pod of a volume.
func podOf(volume string) string { return strings.Split(volume, ".")[1] }

// dnsName is that of the certificates of a pod's volume.
func dnsName(volume, pod string) string { return volume + "." + pod + "." + namespace + ".svc" }

func (l *ledger) show(w io.Writer, all map[string]*summary) {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"issuer", "volumes", "certificates", "that ended", "looks at files", "expired", "asked for again, after its time: median", "p99", "last"})
	for _, issuer := range []string{healthy, slow, silent} {
		s := all[issuer]
		slices.Sort(s.late)
		row := table.Row{issuer, s.volumes, s.certificates, s.ended, s.looks, s.expired}
		for _, p := range []float64{0.5, 0.99, 1} {
			row = append(row, fmt.Sprintf("%.1f s", stat.Quantile(p, stat.Empirical, s.late, nil)))
		}
		t.AppendRow(row)
	}
	t.RenderMarkdown()
	slices.Sort(l.starts)
	if n := len(l.starts); n > 0 {
		fmt.Fprintf(w, "\n%d new pods of the healthy issuer ran after %s (median) and %s (the last).\n", n, l.starts[n/2].Round(time.Millisecond), l.starts[n-1].Round(time.Millisecond))
	}
}

// judgeHealthy demands that nothing happened to the healthy issuer's volumes.
func (l *ledger) judgeHealthy(s *summary) error {
	var err error
	if s.ended > 0 || s.expired > 0 {
		err = fmt.Errorf("%d certificates of the healthy issuer ended, and %d times a file had one that had ended", s.ended, s.expired)
	}
	if last := s.late[len(s.late)-1]; last > latest {
		err = errors.Join(err, fmt.Errorf("a renewal of the healthy issuer began %.1f s late", last))
	}
	for name, h := range l.volumes { // Each node's files are looked at in rounds of their own.
		if !l.ranUntil(name).IsZero() && h.looks < l.rounds/2-3 {
			err = errors.Join(err, fmt.Errorf("volume %s had a certificate in %d of %d looks", name, h.looks, l.rounds/2))
		}
	}
	return err
}

// judgeEvents demands that each Event was true.
func (l *ledger) judgeEvents(w io.Writer) error {
	counts := map[string]int{}
	var untrue error
	for _, e := range l.events {
		told, err := l.judge(e)
		if told {
			counts[e.Reason]++
		}
		if err != nil {
			const format = "the Event %s of pod %s at %s is not true: %w: %s"
			untrue = errors.Join(untrue, fmt.Errorf(format, e.Reason, e.InvolvedObject.Name, e.LastTimestamp.UTC().Format(time.RFC3339), err, e.Message))
		}
	}
	fmt.Fprintln(w)
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%d Events %s\n", counts[reason], reason)
	}
	return untrue
}

// judgeSilence demands that there was an Event of each certificate that ended.
func (l *ledger) judgeSilence() (missing error) {
	told := map[string]bool{}
	for _, e := range l.events {
		if m := ours.FindStringSubmatch(e.Message); m != nil && e.Reason == "CertificateExpired" {
			if end := expired.FindStringSubmatch(m[2]); end != nil {
				told[dnsName(m[1], e.InvolvedObject.Name)+" "+end[1]] = true
			}
		}
	}
	for name, h := range l.volumes {
		for i, c := range h.certificates {
			end := c.end.UTC().Format(time.RFC3339)
			if l.ranUntil(name).After(c.end.Add(queued)) && !earlier(h.until(i), c.end.Add(near)) && !told[name+" "+end] {
				missing = errors.Join(missing, fmt.Errorf("no Event said that the certificate of %s ended at %s", name, end))
			}
		}
	}
	return missing
}
