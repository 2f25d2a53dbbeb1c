package signer

// Names in PodCertificateRequests (certificates.k8s.io) on which the node plugin and mayfly-controller agree.
const (
	// PodCertificateSigner is the signerName of the node plugins' requests.
	PodCertificateSigner = "csi.mayfly.dev/volume"
	// VolumeAnnotation is the key of the unverifiedUserAnnotations that has the CSI volume's id: `csi-` and the
	// SHA-256 of the pod's UID and the volume's name (kubernetes pkg/volume/csi/csi_mounter.go, makeVolumeHandle).
	// The signer finds the volume by it, and takes what to sign from the pod's spec.
	VolumeAnnotation = "csi.mayfly.dev/volume-id"
)

// The group and kind of issuers that are CAs of mayfly-controller: its own, or one for an issuer of cert-manager.
const (
	CAGroup = "csi.mayfly.dev"
	CAKind  = "CA"
)
