package e2e

import (
	"slices"
	"testing"
	"time"
)

// A telling is a story that can be told.
type telling struct {
	name string
	tell func(*story)
}

// TestStories tells every story: first together those that leave the cluster as it is, then one by one those that break it, then what
// must hold after all of them.
func TestStories(t *testing.T) {
	begun := time.Now()
	before := takeInventory(t)
	t.Run("the sample of the README", sample)
	t.Run("together", func(t *testing.T) {
		for _, x := range []telling{
			{"twenty pods of a deployment have a certificate each", twentyPods},
			{"whoever a pod runs as can read its certificate and nobody can write", readers},
			{"someone has an account on a node", curiousHostUser},
			{"a pod with a user namespace of its own", userNamespace},
			{"an init container and two containers share a volume", sharedVolume},
			{"two volumes in a pod have a certificate each", twoVolumes},
			{"a job ends", job},
			{"a pod is deleted while its certificate is pending", deletedWhilePending},
			{"a namespace is deleted", namespaceDeleted},
			{"an ACME order that takes its time is ordered once", acme},
			{"a pod starts without its certificate and gets one with its IP", podIP},
			{"describe says that the issuer is missing", issuerMissing},
			{"an issuer goes and comes back, and each pod is told when its certificate ends", issuerGone},
			{"volumes of a silent issuer and a slow one hold up nobody", heldUp},
			{"a mistake in the attributes", mistake},
		} {
			t.Run(x.name, func(t *testing.T) {
				t.Parallel()
				x.tell(begin(t))
			})
		}
	})
	t.Run("after the stories together all is back where it was", func(t *testing.T) { backWhereItWas(t, before) })
	for _, x := range slices.Concat([]telling{
		{"describe says why the request was denied", requestDenied},
		{"describe says that a right is missing", rightMissing},
		{"describe says what troubleshooting.md has of the kubelet's faults", faultsOfTheKubelet},
		{"the driver is killed and then upgraded while pods start and rotate", driverReplaced},
		{"the driver is rolled out, and its registration is lost", driverRegistered},
		{"a pod is deleted while the driver is absent", deletedWithoutDriver},
		{"pods written for the drivers of cert-manager run unchanged, and move from one node by node", moved},
		{"an operator sets profiles and renews by annotation, and each pod asks as itself", operated},
		{"the controller decides, and cert-manager's approver stays on", centrallyApproved},
		{"a security engineer owns the policy", policyOwned},
		{"a node joins with the start-up taint", startupTaint},
		{"someone has the token of a node's driver", stolenToken},
		{"the controller decides beside approver-policy, which allows everything", besideApproverPolicy},
		{"pods ask as themselves, and the driver can't ask", asPods},
	}, from(t, "1.37", // PodCertificateRequests, ClusterTrustBundles.
		telling{"certificates are asked for as the node, and Kubernetes' own volumes get theirs", podCertificates},
		telling{"someone has the token of a driver that asks as its node, or all rights of the node", stolenRights},
		telling{"CA certificates change in a running pod", trustPushed},
	), olderThan(t, "1.37",
		telling{"what Kubernetes does not have yet is named", notYetInKubernetes},
	), []telling{
		{"pods are deleted by force", deletedByForce},
		{"pods are deleted by force while the kubelet is absent", deletedWithoutKubelet},
		{"the kubelet is killed", kubeletKilled},
		{"the node is rebooted", nodeRebooted},
		{"a pod on the host's network starts before the network of pods is there", beforeTheNetwork},
		{"the kubelet's root is a link", kubeletRootLinked},
		{"the kubelet has another root", kubeletRootElsewhere},
		{"cert-manager is down for two minutes", certManagerDown},
		{"the API server is down for two minutes", apiServerDown},
	}) {
		t.Run(x.name, func(t *testing.T) { x.tell(begin(t)) })
	}
	t.Run("after everything all is back where it was", func(t *testing.T) { backWhereItWas(t, before) })
	t.Run("after everything the rights are those that were used", func(t *testing.T) {
		used := audited(t, begun)
		if !shared.Versions.HasKubernetes("1.37") {
			t.Log("not every right can have been used: some stories are not told")
			return
		}
		everyRightUsed(t, used)
	})
}
