package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/mayfly-csi/mayfly/signer/controller/review"
)

// print prints a report: what changes, what pods of files would get, warnings, and what was looked at.
func (o *checkOptions) print(to io.Writer, report review.Report) error {
	if o.Output == "json" {
		encoder := json.NewEncoder(to)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	table := tabwriter.NewWriter(to, 0, 8, 3, ' ', 0)
	if len(report.Denials)+len(report.Approvals) > 0 {
		fmt.Fprintln(table, "NAMESPACE\tPOD\tSERVICE ACCOUNT\tVOLUME\tTODAY\tTHEN\tMESSAGE")
	}
	for _, d := range report.Denials {
		today := "denied"
		if d.New {
			today = "approved"
		}
		fmt.Fprintln(table, row(d.Subject, today, "denied", d.Message))
	}
	for _, a := range report.Approvals {
		fmt.Fprintln(table, row(a.Subject, "denied", "approved", "today: "+a.Message))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var text strings.Builder
	for _, p := range report.Planned {
		text.WriteString(plan(p))
	}
	for _, warning := range report.Warnings {
		text.WriteString("Warning: " + warning + "\n")
	}
	text.WriteString(o.looked(report))
	_, err := io.WriteString(to, text.String())
	return err
}

func row(of review.Subject, today, then, message string) string {
	return strings.Join([]string{of.Namespace, of.Pod, of.ServiceAccount, of.Volume, today, then, message}, "\t")
}

// plan returns what a volume of a pod of a file would get, and why not.
func plan(p review.Plan) string {
	var text strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&text, "  %-12s %s\n", name+":", value)
		}
	}
	fmt.Fprintf(&text, "Pod %s/%s, volume %s: ", p.Namespace, p.Pod, p.Volume)
	if p.Approved {
		text.WriteString("would be approved\n")
	} else {
		text.WriteString("would be denied\n")
		line("because", p.Message)
	}
	decided := "own names: no CertificatePolicy selects the pod"
	if len(p.Policies) > 0 {
		decided = "CertificatePolicy " + strings.Join(p.Policies, ", ")
	}
	line("decided by", decided)
	if c := p.Certificate; c != nil {
		line("subject", c.Subject)
		line("DNS names", strings.Join(c.DNSNames, ", "))
		line("IPs", strings.Join(c.IPs, ", "))
		line("URIs", strings.Join(c.URIs, ", "))
		var usages []string
		for _, u := range c.Usages {
			usages = append(usages, string(u))
		}
		line("usages", strings.Join(usages, ", "))
		if c.IsCA {
			line("CA", "true")
		}
		line("duration", c.Duration)
		line("key", c.Key)
		line("issuer", c.Issuer)
	}
	line("assumed", strings.Join(p.Assumes, "; "))
	return text.String()
}

// looked returns what was looked at, and how much of it is denied.
func (o *checkOptions) looked(r review.Report) string {
	where := "all namespaces"
	if r.Namespace != "" {
		where = "namespace " + r.Namespace
	}
	text := fmt.Sprintf("Looked at %d volumes of %d running pods of %s, by %d CertificatePolicies of the cluster",
		r.Volumes, r.Pods, where, r.Policies)
	if len(o.Filenames.Values) == 0 {
		return text + fmt.Sprintf(": %d are denied.\n", len(r.Denials))
	}
	text += fmt.Sprintf(" and %d of files: %d would be denied and %d approved that are not today.\n",
		r.Added, r.New(), len(r.Approvals))
	if n := len(r.Planned); n > 0 {
		text += fmt.Sprintf("Looked at %d volumes of pods of files.\n", n)
	}
	if r.Others > 0 {
		text += fmt.Sprintf("Passed over %d objects of files that are no CertificatePolicies, pods or workloads.\n",
			r.Others)
	}
	return text
}
