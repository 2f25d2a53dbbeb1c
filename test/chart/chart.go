// Package chart renders Mayfly's chart with Helm's own code, and has the files that are written from it.
package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/engine"
)

// Values are values of the chart, as those of a values file.
type Values = map[string]any

// A Cluster is what templates see of the cluster.
type Cluster struct {
	Version string                // Empty: the newest that Mayfly knows.
	APIs    []string              // Besides Kubernetes' own.
	Lookup  engine.ClientProvider // What there is; nil: nothing.
}

// dir is where the chart lies in the repository.
func dir(repository string) string { return filepath.Join(repository, "manifests", "chart") }

// load reads the chart of the repository.
func load(repository string) (*chart.Chart, error) {
	loaded, err := loader.Load(dir(repository))
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	c, ok := loaded.(*chart.Chart)
	if !ok {
		return nil, fmt.Errorf("the chart is a %T", loaded)
	}
	return c, nil
}

// Render renders the chart as release mayfly of the namespace mayfly-system. The keys are paths of templates, from
// the chart's directory on.
func Render(repository string, values Values, cluster Cluster) (map[string]string, error) {
	c, err := load(repository)
	if err != nil {
		return nil, err
	}
	release := common.ReleaseOptions{Name: "mayfly", Namespace: "mayfly-system", IsInstall: true}
	return render(c, values, release, cluster)
}

func render(
	c *chart.Chart, values Values, release common.ReleaseOptions, cluster Cluster,
) (map[string]string, error) {
	version := cluster.Version
	if version == "" {
		version = "v1.37.0"
	}
	parsed, err := common.ParseKubeVersion(version)
	if err != nil {
		return nil, fmt.Errorf("read version %s: %w", version, err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *parsed
	capabilities.APIVersions = append(slices.Clone(capabilities.APIVersions), cluster.APIs...)
	all, err := util.ToRenderValues(c, values, release, capabilities)
	if err != nil {
		return nil, err
	}
	var rendered map[string]string
	if cluster.Lookup == nil {
		rendered, err = engine.Render(c, all)
	} else {
		rendered, err = engine.RenderWithClientProvider(c, all, cluster.Lookup)
	}
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for path, text := range rendered {
		if strings.TrimSpace(text) != "" && !strings.HasSuffix(path, ".tpl") {
			files[strings.TrimPrefix(path, c.Name()+"/")] = text
		}
	}
	return files, nil
}

// An install file is one that kubectl applies, rendered from a template with values of the chart.
type installFile struct {
	path, template string // Under manifests, and under the chart's templates.
	values         Values
}

// installFiles are all files that come from the chart. The others under manifests are patches, and what users copy.
func installFiles() []installFile {
	withProfiles := Values{"profiles": Values{
		"issuer-name": "internal-ca", "issuer-kind": "ClusterIssuer",
		"distrust": "# 1F:2E:… # The root whose key was stolen.\n", "profiles.yaml": profiles,
	}}
	bothNames := Values{"dropIn": Values{"csiDriver": true, "csiDriverSpiffe": true}}
	configMaps := Values{"rbac": Values{"configMaps": Values{"enabled": true}}}
	asPods := Values{"app": Values{"driver": Values{"useTokenRequest": true}}}
	podCertificate := Values{"mode": "pod-certificate"}
	return []installFile{
		{"00-namespace.yaml", "namespace.yaml", nil},
		{"csidriver.yaml", "csidriver.yaml", nil},
		{"rbac.yaml", "rbac.yaml", nil},
		{"daemonset.yaml", "daemonset.yaml", nil},
		{"controller/crd.yaml", "controller/crd.yaml", nil},
		{"controller/policies.yaml", "controller/policies.yaml", nil},
		{"controller/rbac.yaml", "controller/rbac.yaml", nil},
		{"controller/workload.yaml", "controller/workload.yaml", nil},
		{"authority/namespace.yaml", "pod-certificate/namespace.yaml", podCertificate},
		{"modes/pod-certificate/authority.yaml", "pod-certificate/authority.yaml", podCertificate},
		{"modes/pod-certificate/controller.yaml", "pod-certificate/controller.yaml", podCertificate},
		{"modes/pod-certificate/node.yaml", "pod-certificate/node.yaml", podCertificate},
		{"modes/pod-certificate/policies.yaml", "pod-certificate/policies.yaml", podCertificate},
		{"drop-in/csidrivers.yaml", "csidrivers-drop-in.yaml", bothNames},
		{"options/read-pods.yaml", "options/read-pods.yaml", Values{"rbac": Values{"readPods": true}}},
		{"options/config-maps.yaml", "options/config-maps.yaml", configMaps},
		{"options/profiles.yaml", "options/profiles.yaml", withProfiles},
		{"options/startup-taint.yaml", "options/startup-taint.yaml", Values{"startupTaint": Values{"enabled": true}}},
		{"options/token-request/csidriver.yaml", "csidriver.yaml", asPods},
		{"options/token-request/rbac.yaml", "options/token-request/rbac.yaml", asPods},
		{"options/token-request/workloads.yaml", "options/token-request/workloads.yaml", asPods},
	}
}

// profiles are those of options/profiles.yaml, an example.
const profiles = `profiles:
  # A pod that says csi.mayfly.dev/profile: web needs to say nothing else.
  web:
    dns-names: ${POD_NAME}.${POD_NAMESPACE}.svc
    duration: 24h
    layout: pem,bundle
    renew-window: 02:00-04:00
  mesh:
    spiffe: "true"
    duration: 1h
# The profile of volumes that name none, by the pod's namespace; "*" is for the other namespaces.
namespaces:
  mesh-workloads: mesh
# That of a driver's volumes that name none, whatever their namespace.
drivers:
  spiffe.csi.cert-manager.io: mesh
`

// InstallFiles returns the text of each install file, by its path under manifests. kubectl has no releases: it makes
// the namespace, and keeps nothing that is deleted.
func InstallFiles(repository string) (map[string]string, error) {
	files := map[string]string{}
	for _, f := range installFiles() {
		values := Values{
			"createNamespace": true, "crds": Values{"keep": false},
			"authority": Values{"keep": false}, "dropIn": Values{"keep": false},
		}
		for key, value := range f.values {
			if section, ok := values[key].(Values); ok {
				maps.Copy(section, value.(Values))
			} else {
				values[key] = value
			}
		}
		rendered, err := Render(repository, values, Cluster{})
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", f.path, err)
		}
		text := rendered["templates/"+f.template]
		if text == "" {
			return nil, fmt.Errorf("render %s: %s is empty", f.path, f.template)
		}
		files[f.path] = strings.TrimSpace(text) + "\n"
	}
	return files, nil
}

// Alerts returns the rules for Prometheus of docs/reference.md, which the chart's PrometheusRule has.
func Alerts(repository string) (string, error) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "reference.md"))
	if err != nil {
		return "", fmt.Errorf("read the alerts: %w", err)
	}
	_, after, _ := strings.Cut(string(text), "\n```yaml\ngroups:\n")
	rules, _, found := strings.Cut(after, "```")
	if !found {
		return "", fmt.Errorf("docs/reference.md has no block of alerts")
	}
	return "# From docs/reference.md, by make generate.\ngroups:\n" + rules, nil
}
