package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/strvals"
)

// parsed reads values as helm --set has them.
func parsed(t *testing.T, set string) Values {
	t.Helper()
	values, err := strvals.Parse(set)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// A row says what a value changes: which line of which template it adds or, with an exclamation mark, takes away.
type row struct{ set, file, line string }

// about returns the path that the row is about, and the values that come before it.
func (r row) about() (path, before string) {
	all := regexp.MustCompile(`(?:^|,)([\w.[\]-]+)=`).FindAllStringSubmatchIndex(r.set, -1)
	last := all[len(all)-1]
	return r.set[last[2]:last[3]], r.set[:last[0]]
}

const (
	plugin   = "daemonset.yaml"
	deployed = "controller/workload.yaml"
	options  = "options/"

	monitor    = "metrics.podmonitor.enabled=true,metrics.podmonitor."
	monitors   = options + "podmonitors.yaml"
	network    = "networkPolicy.enabled=true,networkPolicy.apiServer={10.0.0.1/32},networkPolicy."
	networks   = options + "networkpolicy.yaml"
	allowed    = "allowedNamespaces.enabled=true,allowedNamespaces."
	namespaces = options + "allowed-namespaces.yaml"
	scc        = "openshift.securityContextConstraint"
)

// rows has each value of the chart; the last path in set is what the row is about.
var rows = []row{
	{"mode=pod-certificate", plugin, "value: pod-certificate"},
	{"mode=pod-certificate,keepRightsOf=driver", "rbac.yaml", "kind: ClusterRole"},
	{"dropIn.csiDriver=true", plugin, `value: "csi.mayfly.dev,csi.cert-manager.io"`},
	{"dropIn.csiDriverSpiffe=true", deployed, `value: "csi.mayfly.dev,spiffe.csi.cert-manager.io"`},
	{"dropIn.names={certs.example.org=csi-driver}", "csidrivers-drop-in.yaml", "name: certs.example.org"},
	{"dropIn.names={a.example.org},dropIn.keep=false", "csidrivers-drop-in.yaml", "!helm.sh/resource-policy: keep"},
	{"app.logLevel=5", plugin, `value: "debug"`},
	{"app.logLevel=warn", deployed, `value: "warn"`},
	{"app.logFormat=text", deployed, `value: "text"`},
	{"app.kubeletRootDir=/data/kubelet", plugin, "mountPath: /data/kubelet/plugins/csi.mayfly.dev"},
	{"app.kubeletRootDir=/data/kubelet", plugin, `value: "/data/kubelet"`},
	{"app.trustDomain=example.org", deployed, `value: "example.org"`},
	{"app.spiffePath=/p/${POD_NAMESPACE}", plugin, `value: "/p/${POD_NAMESPACE}"`},
	{"app.name=spiffe.csi.cert-manager.io", plugin, `value: "csi.mayfly.dev,spiffe.csi.cert-manager.io"`},
	{"app.name=id.example.org", plugin, `value: "csi.mayfly.dev,id.example.org=csi-driver-spiffe"`},
	{"app.runtimeIssuanceConfigMap=issuer", deployed, `value: "mayfly-system/issuer"`},
	{"app.runtimeIssuanceConfigMap=pki/issuer", options + "profiles.yaml", "namespace: pki"},
	{"app.issuer.name=ca", deployed, `value: "ca"`},
	{"app.issuer.kind=ClusterIssuer", plugin, "- name: MAYFLY_ISSUER_KIND"},
	{"app.issuer.group=pki.example.org", plugin, `value: "pki.example.org"`},
	{"app.trust=public", plugin, `value: "public"`},
	{"app.trustFiles.corp=/etc/corp.pem", plugin, `value: "corp=/etc/corp.pem"`},
	{"app.watchPods=true", options + "read-pods.yaml", "resources: [pods]"},
	{"app.livenessProbe.port=9000", plugin, `value: ":9000"`},
	{"app.driver.name=csi.cert-manager.io", "csidrivers-drop-in.yaml", "name: csi.cert-manager.io"},
	{"app.driver.name=certs.example.org", plugin, `value: "csi.mayfly.dev,certs.example.org=csi-driver"`},
	{"app.driver.useTokenRequest=true", "csidriver.yaml", "requiresRepublish: true"},
	{"app.driver.useTokenRequest=true", "rbac.yaml", "!kind: ClusterRole"},
	{"app.driver.useTokenRequest=true", options + "token-request/rbac.yaml", "kind: ClusterRole"},
	{"app.driver.continueOnNotReady=true", plugin, "- name: MAYFLY_CONTINUE_ON_NOT_READY"},
	{"app.driver.podReadinessGates={pod-ip:any,pod-condition:X}", plugin, `value: "pod-ip:any,pod-condition:X"`},
	{"app.driver.sourceCABundle=/ca.pem", plugin, `value: "file:source-ca-bundle"`},
	{"app.driver.volumes[0].name=more", plugin, "- name: more"},
	{"app.driver.volumeMounts[0].name=more", plugin, "- name: more"},
	{"profiles.issuer-name=ca", options + "profiles.yaml", "issuer-name: ca"},
	{"imageRegistry=registry.example.org", deployed, "image: registry.example.org/mayfly-controller:devel"},
	{"imageNamespace=mirror", plugin, "image: mirror/mayfly:devel"},
	{"image.registry=registry.example.org", plugin, "image: registry.example.org/mayfly:devel"},
	{"image.repository=example.org/a/b", plugin, "image: example.org/a/b:devel"},
	{"image.name=plugin", plugin, "image: plugin:devel"},
	{"image.tag=v1", plugin, "image: mayfly:v1"},
	{"image.digest=sha256:1", plugin, "image: mayfly:devel@sha256:1"},
	{"image.pullPolicy=Always", plugin, "imagePullPolicy: Always"},
	{"imagePullSecrets[0].name=registry", deployed, "- name: registry"},
	{"nameOverride=certs", plugin, "serviceAccountName: certs"},
	{"nameOverride=a,fullnameOverride=certs", deployed, "name: certs-controller"},
	{"namespaceOverride=pki", plugin, "namespace: pki"},
	{"createNamespace=true", "namespace.yaml", "kind: Namespace"},
	{"commonLabels.team=a", "controller/policies.yaml", "team: a"},
	{"daemonSetAnnotations.a=b", plugin, "a: b"},
	{"podAnnotations.a=b", plugin, "a: b"},
	{"podLabels.a=b", plugin, "a: b"},
	{"resources.limits.memory=1Gi", plugin, "memory: 1Gi"},
	{"nodeSelector.certs=yes", plugin, "certs: \"yes\""},
	{"affinity.nodeAffinity.a=b", plugin, "nodeAffinity:"},
	{"tolerations[0].key=a", plugin, "- key: a"},
	{"priorityClassName=high", plugin, "priorityClassName: high"},
	{"hostNetwork=true", plugin, "dnsPolicy: ClusterFirstWithHostNet"},
	{"terminationGracePeriodSeconds=0", plugin, "terminationGracePeriodSeconds: 0"},
	{"updateStrategy.type=OnDelete", plugin, "type: OnDelete"},
	{"updateStrategy.maxUnavailable=10%", plugin, "rollingUpdate: {maxUnavailable: 10%, maxSurge: 0}"},
	{"probes.liveness.periodSeconds=61", plugin, "periodSeconds: 61"},
	{"probes.readiness.periodSeconds=7", plugin, "periodSeconds: 7"},
	{"probes.startup.periodSeconds=3", plugin, "startupProbe:"},
	{"extraEnv[0].name=GOMEMLIMIT", plugin, "- name: GOMEMLIMIT"},
	{"extraVolumes[0].name=more", plugin, "- name: more"},
	{"extraVolumeMounts[0].name=more", plugin, "- name: more"},
	{"serviceAccount.create=false", plugin, "!kind: ServiceAccount"},
	{
		"serviceAccount.name=plugin",
		"controller/policies.yaml", "request.userInfo.username == 'system:serviceaccount:mayfly-system:plugin' ||",
	},
	{"serviceAccount.annotations.a=b", plugin, "a: b"},
	{"rbac.createRequests=false", "rbac.yaml", "!kind: ClusterRole"},
	{"app.driver.useTokenRequest=true,rbac.createRequests=true", "rbac.yaml", "kind: ClusterRole"},
	{"rbac.readPods=true", options + "read-pods.yaml", "resources: [pods]"},
	{"rbac.configMaps.enabled=true", options + "config-maps.yaml", "resources: [configmaps]"},
	{"rbac.configMaps.enabled=true,rbac.configMaps.names={corp-ca}", options + "config-maps.yaml", "- corp-ca"},
	{"controller.replicaCount=3", deployed, "replicas: 3"},
	{
		"controller.image.registry=registry.example.org",
		deployed, "image: registry.example.org/mayfly-controller:devel",
	},
	{"controller.image.repository=a/b", deployed, "image: a/b:devel"},
	{"controller.image.name=approver", deployed, "image: approver:devel"},
	{"controller.image.tag=v1", deployed, "image: mayfly-controller:v1"},
	{"controller.image.digest=sha256:1", deployed, "image: mayfly-controller:devel@sha256:1"},
	{"controller.image.pullPolicy=Always", deployed, "imagePullPolicy: Always"},
	{
		"controller.issuers={awspcaissuers.awspca.cert-manager.io/*}",
		"controller/rbac.yaml", "- awspcaissuers.awspca.cert-manager.io/*",
	},
	{"controller.podCIDRs={10.0.0.0/8}", deployed, `value: "10.0.0.0/8"`},
	{"controller.ignoreMetadata={example.org/*}", deployed, `value: "example.org/*"`},
	{"controller.clusterDomain=corp.example.org", deployed, `value: "corp.example.org"`},
	{"controller.onControlPlaneOnly=true", deployed, "requiredDuringSchedulingIgnoredDuringExecution:"},
	{"controller.nodeSelector.a=b", deployed, "a: b"},
	{"controller.tolerations[0].key=a", deployed, "- key: a"},
	{"controller.topologySpreadConstraints[0].maxSkew=2", deployed, "- maxSkew: 2"},
	{"controller.priorityClassName=high", deployed, "priorityClassName: high"},
	{"controller.podDisruptionBudget.enabled=false", deployed, "!kind: PodDisruptionBudget"},
	{"controller.podDisruptionBudget.minAvailable=50%", deployed, "minAvailable: 50%"},
	{"controller.resources.limits.memory=1Gi", deployed, "memory: 1Gi"},
	{"controller.goMemoryLimit=900MiB", deployed, `value: "900MiB"`},
	{"controller.podLabels.a=b", deployed, "a: b"},
	{"controller.podAnnotations.a=b", deployed, "a: b"},
	{"controller.extraEnv[0].name=GODEBUG", deployed, "- name: GODEBUG"},
	{"controller.goMemoryLimit=,controller.extraEnv[0].name=GOMEMLIMIT", deployed, "- name: GOMEMLIMIT"},
	{"crds.enabled=false", "controller/crd.yaml", "!kind: CustomResourceDefinition"},
	{"crds.keep=false", "controller/crd.yaml", "!helm.sh/resource-policy: keep"},
	{"mode=pod-certificate,authority.namespace=cas", "pod-certificate/namespace.yaml", "name: cas"},
	{"mode=pod-certificate,authority.namespace=cas", "pod-certificate/authority.yaml", "namespace: cas"},
	{"mode=pod-certificate,authority.createNamespace=false", "pod-certificate/namespace.yaml", "!kind: Namespace"},
	{"mode=pod-certificate,authority.keep=false", "pod-certificate/namespace.yaml", "!helm.sh/resource-policy: keep"},
	{"metrics.enabled=false", plugin, "!- name: MAYFLY_METRICS_ADDRESS"},
	{"metrics.port=9999", plugin, `value: ":9999"`},
	{"metrics.podmonitor.enabled=true", monitors, "name: mayfly-controller"},
	{monitor + "namespace=monitoring", monitors, "namespace: monitoring"},
	{monitor + "prometheusInstance=main", monitors, "prometheus: main"},
	{monitor + "interval=5s", monitors, "interval: 5s"},
	{monitor + "scrapeTimeout=4s", monitors, "scrapeTimeout: 4s"},
	{monitor + "labels.a=b", monitors, "a: b"},
	{monitor + "annotations.c=d", monitors, "c: d"},
	{monitor + "honorLabels=true", monitors, "honorLabels: true"},
	{monitor + "endpointAdditionalProperties.scheme=http", monitors, "scheme: http"},
	{"prometheusRule.enabled=true", options + "prometheusrule.yaml", "expr: mayfly_certificates_expired > 0"},
	{
		"prometheusRule.enabled=true,prometheusRule.namespace=monitoring",
		options + "prometheusrule.yaml", "namespace: monitoring",
	},
	{"prometheusRule.enabled=true,prometheusRule.labels.role=alerts", options + "prometheusrule.yaml", "role: alerts"},
	{"networkPolicy.apiServer={10.0.0.1/32},networkPolicy.enabled=true", networks, "kind: NetworkPolicy"},
	{"networkPolicy.enabled=true,networkPolicy.apiServer={10.0.0.1/32}", networks, `- ipBlock: {cidr: "10.0.0.1/32"}`},
	{network + "apiServerPorts={8443}", networks, "- {protocol: TCP, port: 8443}"},
	{network + "metricsFrom[0].podSelector.matchLabels.a=b", networks, "a: b"},
	{"allowedNamespaces.names={shop},allowedNamespaces.enabled=true", namespaces, "kind: ValidatingAdmissionPolicy"},
	{allowed + "names={shop,web}", namespaces, "request.namespace in ['shop', 'web']"},
	{allowed + "labels.certs=on", namespaces, "namespaceObject.metadata.?labels[?'certs'].orValue('') == 'on'"},
	{"startupTaint.enabled=true", options + "startup-taint.yaml", "verbs: [patch]"},
	{"startupTaint.enabled=true", deployed, "- name: MAYFLY_STARTUP_TAINT"},
	{"resourceQuota.enabled=false", "namespace.yaml", "!kind: ResourceQuota"},
	{"resourceQuota.pods=5k", "namespace.yaml", "hard: {pods: 5k}"},
	{
		"selinux.context=system_u:object_r:container_file_t:s0",
		plugin, `value: "system_u:object_r:container_file_t:s0"`,
	},
	{scc + ".enabled=true", options + "openshift.yaml", "verbs: [use]"},
	{scc + ".enabled=true," + scc + ".name=mayfly", options + "openshift.yaml", "resourceNames: [mayfly]"},
	{"extraObjects[0].kind=ConfigMap", "extra-objects.yaml", "kind: ConfigMap"},
}

// Each value of the chart changes what its row says, beside the values that come before it in the row.
func TestValues(t *testing.T) {
	rendered, missed := map[string]map[string]string{}, leaves(t)
	for _, r := range rows {
		path, set := r.about()
		if _, ok := rendered[set]; !ok {
			rendered[set], _ = Render(repository, parsed(t, set), Cluster{}) // Nothing where one needs the other.
		}
		before := rendered[set]["templates/"+r.file]
		after := mustRender(t, parsed(t, r.set), Cluster{})["templates/"+r.file]
		line, gone := strings.CutPrefix(r.line, "!")
		if gone {
			before, after = after, before
		}
		if count(after, line) <= count(before, line) {
			t.Errorf("%s: %q in %s: %s", r.set, r.line, r.file, after)
		}
		for leaf := range missed {
			if rest, ok := strings.CutPrefix(path+".", leaf); ok && strings.ContainsAny(rest[:1], ".[") {
				delete(missed, leaf)
			}
		}
	}
	for leaf := range missed {
		t.Errorf("no row says what %s changes", leaf)
	}
}

// count says how often a text has a line, whatever its indentation.
func count(text, line string) (n int) {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			n++
		}
	}
	return n
}

// leaves are the paths of all values.
func leaves(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir(repository), "files", "values.txt"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, path := range strings.Fields(string(text)) {
		if !strings.HasSuffix(path, ".") {
			all[path] = true
		}
	}
	return all
}

// OpenShift is detected by its API.
func TestOpenShift(t *testing.T) {
	cluster := Cluster{APIs: []string{"security.openshift.io/v1/SecurityContextConstraints"}}
	const file = "templates/options/openshift.yaml"
	for mode, want := range map[string]int{"driver": 1, "none": 0} { // The controller has a user of its own.
		text := mustRender(t, parsed(t, "mode="+mode), cluster)[file]
		if strings.Count(text, "resourceNames: [privileged]") != 1 || strings.Count(text, "resourceNames: [nonroot-v2]") != want {
			t.Errorf("mode %s: %s", mode, text)
		}
	}
	if off := mustRender(t, parsed(t, scc+".enabled=false"), cluster)[file]; off != "" {
		t.Error(off)
	}
	if none := mustRender(t, nil, Cluster{})[file]; none != "" {
		t.Error(none)
	}
}
