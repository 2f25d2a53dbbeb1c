package decide

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// differences returns all in which a request differs from what the volume's node plugin, or kubelet, asks for.
func (r Rules) differences(of Request, wanted spec.Spec) problem.List {
	switch {
	case of.Native != nil:
		return of.nativeDifferences(wanted)
	case of.Object != nil:
		return r.objectDifferences(of, wanted)
	}
	// A PodCertificateRequest. Issuer, usages, CA flag and annotations come from the pod's spec.
	all := append(of.duration(wanted), of.account(wanted)...)
	if len(of.Annotations) > 0 {
		all = append(all, errUserAnnotations())
	}
	return append(all, CSR(of.CSR, wanted)...)
}

func errUserAnnotations() error {
	return fmt.Errorf("unverifiedUserAnnotations: there must be %s and nothing else; podCertificate volumes have the "+
		"signers %sissuer.<namespace>.<name> and %[2]sclusterissuer.<name>", signer.VolumeAnnotation, Domain)
}

// objectDifferences compares a CertificateRequest.
func (r Rules) objectDifferences(of Request, wanted spec.Spec) problem.List {
	all := append(of.Object.differences(wanted), of.duration(wanted)...)
	annotations := r.Counted(of.Annotations, wanted.Annotations)
	if !maps.Equal(annotations, wanted.Annotations) {
		all = append(all, fmt.Errorf("%w (%s)", difference("annotations", list(pairs(annotations)),
			list(pairs(wanted.Annotations))), ByWebhook))
	}
	if labels := r.Counted(of.Object.Labels, nil); len(labels) > 0 {
		all = append(all, fmt.Errorf("%w (%s)", difference("labels", list(pairs(labels)), "none"), ByWebhook))
	}
	der, err := decode(of.CSR)
	if err != nil {
		return append(all, fmt.Errorf("the signing request is not understood: %w", err))
	}
	return append(all, CSR(der, wanted)...)
}

// ByWebhook says what an operator can do about labels and annotations that an admission webhook adds.
const ByWebhook = "if an admission webhook of the cluster adds one, its key belongs into mayfly-controller's " +
	"--ignore-metadata"

// Counted returns the asked labels or annotations without those that only an ignored key has brought.
func (r Rules) Counted(asked, wanted map[string]string) map[string]string {
	counted := maps.Clone(asked)
	maps.DeleteFunc(counted, func(key, _ string) bool {
		_, is := wanted[key]
		return !is && slices.ContainsFunc(r.Ignored, func(pattern string) bool {
			begin, open := strings.CutSuffix(pattern, "*")
			return key == pattern || open && strings.HasPrefix(key, begin)
		})
	})
	return counted
}

// duration compares the lifetimes.
func (r Request) duration(wanted spec.Spec) problem.List {
	switch {
	case r.Duration == 0:
		return problem.List{difference("duration", "none", wanted.Duration)}
	case r.Duration != wanted.Duration:
		return problem.List{difference("duration", r.Duration, wanted.Duration)}
	}
	return nil
}

// account compares the pod's service account, which a PodCertificateRequest says.
func (r Request) account(wanted spec.Spec) problem.List {
	if r.ServiceAccount == wanted.Pod.ServiceAccount {
		return nil
	}
	return problem.List{difference("service account", r.ServiceAccount, wanted.Pod.ServiceAccount)}
}

// differences compares what a CertificateRequest alone says.
func (o Object) differences(wanted spec.Spec) (all problem.List) {
	if o.Issuer != wanted.Issuer {
		all = append(all, difference("issuer", title(o.Issuer), title(wanted.Issuer)))
	}
	if asked, wants := usages(o.Usages), usages(wanted.Usages); !slices.Equal(asked, wants) {
		all = append(all, difference("usages", list(asked), list(wants)))
	}
	if o.IsCA != wanted.IsCA {
		all = append(all, difference("CA", o.IsCA, wanted.IsCA))
	}
	if len(o.Finalizers) > 0 {
		all = append(all, difference("finalizers", list(o.Finalizers), "none"))
	}
	return all
}

// decode reads one signing request in PEM, written as node plugins write it.
func decode(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(block.Headers) > 0 ||
		!bytes.Equal(pem.EncodeToMemory(block), text) {
		return nil, errors.New("it is not one CERTIFICATE REQUEST in PEM and nothing else")
	}
	return block.Bytes, nil
}

// longest is how many bytes of a value a message has.
const longest = 256

// difference returns one between what is asked for and what a volume wants, in words for the pod's author.
func difference(what string, asked, wants any) error {
	return fmt.Errorf("%s: asked for is %s, and the volume wants %s", what, brief(asked), brief(wants))
}

func brief(value any) string { return message.Cut(fmt.Sprint(value), longest) }

// list returns a list for a message: of a long one its beginning.
func list[T any](all []T) string {
	var text strings.Builder
	text.WriteString("[")
	for i, one := range all {
		if i > 0 {
			text.WriteString(" ")
		}
		if text.Len() > longest {
			break
		}
		fmt.Fprintf(&text, "%q", brief(one))
	}
	text.WriteString("]")
	return message.Cut(text.String(), longest)
}

func title(i signer.Issuer) string { return fmt.Sprintf("%q %q of %q", i.Kind, i.Name, i.Group) }

func usages(all []signer.Usage) []signer.Usage {
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

func pairs(all map[string]string) (pairs []string) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		pairs = append(pairs, key+"="+all[key])
	}
	return pairs
}
