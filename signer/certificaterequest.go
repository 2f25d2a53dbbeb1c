package signer

// Approvable is the type of a condition that mayfly-controller adds to a CertificateRequest that it has denied, when it
// would approve another one like it: policies have changed. Node plugins wait for it.
const Approvable = "csi.mayfly.dev/Approvable"
