package service

import (
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// health returns what is wrong with a volume at t; nothing for a valid pair whose last attempt succeeded.
func (n node) health(v *store.Volume, t time.Time) []*csi.VolumeHealth_VolumeHealthEntry {
	failure := v.Record().Failure
	entry := &csi.VolumeHealth_VolumeHealthEntry{Message: "no certificate yet"}
	if blocked := n.BlockedBy(v.ID()); blocked != nil {
		entry.Message += ": " + blocked.Error()
	}
	if pair, ok := v.Pair(); ok {
		entry.Message = validity(pair, t)
	}
	if failure != nil {
		entry.Message += fmt.Sprintf("; %s, last at %s: %s", failure.Tries(), chain.Stamp(failure.At), failure.Reason)
	}
	entry.Message = message.Cut(entry.Message, message.Longest)
	switch {
	case !v.ValidAt(t):
		entry.Status, entry.Reason = csi.VolumeHealthErrorType_INACCESSIBLE, "CertificateNotValid"
	case failure != nil:
		entry.Status, entry.Reason = csi.VolumeHealthErrorType_DEGRADED, "CertificateNotRenewed"
	default:
		return nil
	}
	return []*csi.VolumeHealth_VolumeHealthEntry{entry}
}

// validity returns when a pair is valid, as seen at t.
func validity(pair store.Validity, t time.Time) string {
	is := "is"
	switch {
	case !pair.NotAfter.After(t):
		is = "was"
	case pair.NotBefore.After(t):
		is = "will be"
	}
	return fmt.Sprintf("certificate %s %s valid from %s to %s",
		pair.Serial, is, chain.Stamp(pair.NotBefore), chain.Stamp(pair.NotAfter))
}
