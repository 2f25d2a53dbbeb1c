package signer

// What the node plugin and mayfly-controller write to each other into PodCertificateRequests (certificates.k8s.io).
const (
	// PodCertificateSigner is the signerName of the node plugins' requests.
	PodCertificateSigner = "csi.mayfly.dev/volume"
	// VolumeAnnotation is the key of the unverifiedUserAnnotations that has the CSI volume's id: `csi-` and the SHA-256 of the pod's UID and the
	// volume's name (kubernetes pkg/volume/csi/csi_mounter.go, makeVolumeHandle). Whoever signs finds the volume by it, and takes what to sign from the pod's spec.
	VolumeAnnotation = "csi.mayfly.dev/volume-id"
)

// An issuer of this group and kind is a CA of mayfly-controller: its own, or one that stands for an issuer of cert-manager.
const (
	CAGroup = "csi.mayfly.dev"
	CAKind  = "CA"
)
