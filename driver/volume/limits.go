package volume

import "github.com/mayfly-csi/mayfly/signer/problem"

// The limits of what a pod may ask for beside its certificate. They bound a volume's record.
const (
	maxFlags    = 16      // Mount flags.
	maxFlag     = 4 << 10 // Bytes of one: mount(2) copies a page.
	maxPassword = 1024    // Bytes.
)

// checkFlags bounds the mount flags.
func checkFlags(flags []string) error {
	err := problem.CheckCount(len(flags), maxFlags, "elements")
	for _, flag := range flags {
		if err == nil {
			err = problem.CheckSize(flag, maxFlag)
		}
	}
	return problem.In("mount_flags", err)
}
