package store

import (
	"cmp"
	"crypto"
	"time"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

// LockFiles locks all files of the volume, for a short time: an operation may have the turn for minutes.
func (v *Volume) LockFiles() (unlock func()) {
	v.files.Lock()
	return v.files.Unlock
}

// Installed reads the pair in force, without its CA certificates, and the id of its attempt; the error is
// [fs.ErrNotExist] if there is none. The files must be locked.
func (v *Volume) Installed() (attempt string, pair request.Pair, err error) {
	attempt, text, err := v.dir.InForce()
	if err != nil {
		return "", request.Pair{}, err
	}
	pair, err = request.DecodePair(text, v.now())
	return attempt, pair, err
}

// InstalledKey reads the key in force. The files must be locked.
func (v *Volume) InstalledKey() (crypto.Signer, error) {
	_, text, err := v.dir.InForce()
	if err != nil {
		return nil, err
	}
	return request.DecodeKey(text)
}

// InstalledAt returns when the pod's files were put in force.
func (v *Volume) InstalledAt() (time.Time, error) { return v.dir.InstalledAt() }

// InstalledFile reads a file of the pod.
func (v *Volume) InstalledFile(name string) ([]byte, error) { return v.dir.InstalledFile(name) }

// Install puts the pair of an attempt and its CA certificates in force, with the record of these, all at once. The
// files must be locked.
func (v *Volume) Install(spec volume.Volume, attempt string, pair request.Pair, known []byte) error {
	if err := v.mounted(); err != nil {
		return err
	}
	key, err := request.EncodeKey(pair.Key, spec.Key.Encoding)
	if err != nil {
		return err
	}
	bundle, err := request.EncodePair(pair)
	if err != nil {
		return err
	}
	password, err := v.password(spec)
	if err != nil {
		return err
	}
	set, err := files.Arrange(spec, files.Content{
		Key: key, Bundle: bundle, Chain: pair.Chain.Certificates(), CA: pair.CA, CAText: pair.CAText,
		Private: pair.Key, Password: password,
	})
	if err != nil {
		return err
	}
	return v.dir.Install(files.Generation{Attempt: attempt, Pair: bundle, Trust: known, Files: set, Owner: spec.Owner})
}

// InstallNothing puts an empty set of files in force, for a pod that starts without a certificate.
func (v *Volume) InstallNothing() error {
	defer v.LockFiles()()
	return v.dir.Install(files.Generation{Owner: v.Spec().Owner})
}

// SetPassword stores the keystores' password from a publish call, for renewals.
func (v *Volume) SetPassword(password string) error { return v.dir.WritePassword(password) }

// password returns the keystores' password: the pod's, that of its Secret, or Java's default.
func (v *Volume) password(spec volume.Volume) (string, error) {
	if spec.Keystore.Password != "" {
		return spec.Keystore.Password, nil
	}
	kept, err := v.dir.Password()
	return cmp.Or(kept, volume.StandardPassword), err
}

// SetTrust stores the record of the CA certificates in force. The files must be locked.
func (v *Volume) SetTrust(known []byte) error { return v.dir.WriteTrust(known) }

// Trust reads the record of the CA certificates in force; the error is [fs.ErrNotExist] if there is none. The files
// must be locked.
func (v *Volume) Trust() ([]byte, error) { return v.dir.Trust() }

// SetPending stores the key and the signing request of the attempt under way. Call it before the request is sent.
func (v *Volume) SetPending(key crypto.Signer, csr []byte) error {
	if err := v.mounted(); err != nil {
		return err
	}
	text, err := request.EncodePending(key, csr)
	if err != nil {
		return err
	}
	return v.dir.WritePendingKey(text)
}

// Pending returns the key and the signing request of the attempt under way.
func (v *Volume) Pending() (key crypto.Signer, csr []byte, err error) {
	text, err := v.dir.PendingKey()
	if err != nil {
		return nil, nil, err
	}
	return request.DecodePending(text)
}

// RemovePending removes the key and the signing request of the attempt under way.
func (v *Volume) RemovePending() error { return v.dir.RemovePendingKey() }
