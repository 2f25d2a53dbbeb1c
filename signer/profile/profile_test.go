package profile_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/profile"
)

// An event is one of a watch.
type event struct {
	Type   string            `json:"type"`
	Object *corev1.ConfigMap `json:"object"`
}

// serve plays an API server that has these objects, and sends the events.
func serve(t *testing.T, events <-chan event, there ...corev1.ConfigMap) *rest.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		out := json.NewEncoder(w)
		if r.URL.Query().Get("watch") == "" {
			list := corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: there}
			list.APIVersion, list.Kind = "v1", "ConfigMapList"
			_ = out.Encode(list)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		for {
			select {
			case e := <-events:
				_ = out.Encode(e)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

// object is the ConfigMap, with a list of distrusted certificates or without.
func object(version string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "mayfly", ResourceVersion: version},
		Data:       data,
	}
}

// settings are what the test's ConfigMap says: a list, which may be nil for one that says nothing of it.
type settings struct{ listed []string }

const listKey = "list"

// parse reads a list of words of which x is none.
func parse(data map[string]string) (*settings, error) {
	if data[listKey] == "x" {
		return nil, errors.New(`list is "x"`)
	}
	return &settings{append([]string{}, strings.Fields(data[listKey])...)}, nil
}

// run reads the ConfigMap until the test ends, and passes on its lists.
func run(t *testing.T, config *rest.Config) (*profile.ConfigMap[settings], <-chan []string) {
	t.Helper()
	c, err := profile.New(config, "system", "mayfly", parse, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	lists := make(chan []string, 10)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, func(p *settings) { lists <- p.listed }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c, lists
}

// Each change of the ConfigMap is passed on at once, and what is wrong or gone changes nothing.
func TestChangesArePassedOn(t *testing.T) {
	events := make(chan event)
	c, lists := run(t, serve(t, events, *object("1", nil)))
	next := func(want ...string) {
		t.Helper()
		select {
		case got := <-lists:
			if got == nil || !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("waited in vain")
		}
	}
	next()
	listed := map[string]string{listKey: "stolen"}
	events <- event{"MODIFIED", object("2", listed)}
	next("stolen")
	events <- event{"MODIFIED", object("3", map[string]string{listKey: "x"})}
	events <- event{"DELETED", object("4", nil)}
	events <- event{"ADDED", object("5", listed)} // The next one that is passed on.
	next("stolen")
	if p, err := c.Get(t.Context()); err != nil || !slices.Equal(p.listed, []string{"stolen"}) {
		t.Errorf("%+v (%v)", p, err)
	}
}

// Without a ConfigMap nobody says that a certificate is trusted again.
func TestWithoutAConfigMapThereIsNoList(t *testing.T) {
	c, lists := run(t, serve(t, nil))
	if p, err := c.Get(t.Context()); err != nil || p.listed != nil {
		t.Errorf("%+v (%v)", p, err)
	}
	if len(lists) != 1 || <-lists != nil { // Get returns after it.
		t.Error("there is a list")
	}
}

// A ConfigMap that was never valid is none.
func TestAListThatWasNeverValid(t *testing.T) {
	c, lists := run(t, serve(t, nil, *object("1", map[string]string{listKey: "x"})))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Get(ctx)
	const want = `read the driver's profiles from ConfigMap system/mayfly: list is "x"`
	if err == nil || !strings.HasPrefix(err.Error(), want) || len(lists) > 0 {
		t.Errorf("%v", err)
	}
}
