package trust

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/api"
)

// A ConfigMap that somebody writes all the time is read at once, then once a second, and its last content counts.
func TestASourceThatChangesAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSourceStore(volume.Source{Kind: volume.ConfigMapSource, Namespace: "shop", Name: "cas", Key: "ca.crt"})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var reports []string
		go s.run(ctx, func(a Answer) { reports = append(reports, a.Err.Error()) })
		write := func(n int) {
			o := &api.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cas"}, Data: map[string]string{fmt.Sprint(n): ""},
			}
			if err := s.Update(o); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		write(0)
		if len(reports) != 1 {
			t.Fatalf("the first content was reported %d times at once", len(reports))
		}
		for n := range 1000 {
			time.Sleep(10 * time.Millisecond)
			write(n)
		}
		time.Sleep(reportInterval)
		synctest.Wait()
		if n := len(reports); n < 10 || n > 12 {
			t.Errorf("%d reports in 10 seconds", n)
		}
		if last, want := reports[len(reports)-1], "ConfigMap shop/cas has no key ca.crt; it has 999"; last != want {
			t.Errorf("the last report: %s, want %s", last, want)
		}
	})
}

// An API server that does not answer takes nothing away that was known; one that refuses does.
func TestASourceThatCantBeRead(t *testing.T) {
	s := newSourceStore(volume.Source{Kind: volume.ConfigMapSource, Namespace: "shop", Name: "cas"})
	s.listFailed(errors.New("no route to host"))
	if a := s.answer(); !errors.Is(a.Err, ErrNoAnswer) {
		t.Errorf("before the first list: %v", a.Err)
	}
	if err := s.Replace(nil, ""); err != nil {
		t.Fatal(err)
	}
	s.listFailed(errors.New("no route to host"))
	if got, want := s.answer().Err.Error(), "ConfigMap shop/cas not found"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s.listFailed(apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "cas", nil))
	if a := s.answer(); !apierrors.IsForbidden(a.Err) {
		t.Errorf("after a refusal: %v", a.Err)
	}
}

// What a source's object has besides its certificates is not kept, and each later look has the same answer.
func TestAnObjectIsLetGo(t *testing.T) {
	s := newSourceStore(volume.Source{Kind: volume.ConfigMapSource, Namespace: "shop", Name: "cas", Key: "ca.crt"})
	o := &api.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cas"}, Data: map[string]string{"other": "x"},
	}
	if err := s.Replace([]any{o}, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, want := s.answer().Err.Error(), "ConfigMap shop/cas has no key ca.crt; it has other"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if len(s.objects) != 1 || s.objects["cas"] != nil {
		t.Errorf("it holds %v", s.objects)
	}
}
