package object_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer/object"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A thing is an object of the tests.
type thing struct {
	object.Meta `json:"metadata"`

	Color string `json:"color"`
}

// things makes a client on an API server that a handler plays. credentials are those of the connection.
func things(t *testing.T, credentials string, handle http.HandlerFunc) object.Client[thing] {
	t.Helper()
	server := httptest.NewServer(handle)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	config := &rest.Config{Host: server.URL, Transport: transport, BearerToken: credentials}
	return connect(t, config)
}

func connect(t *testing.T, config *rest.Config) object.Client[thing] {
	t.Helper()
	api, err := object.Connect(config, schema.GroupVersion{Group: "example.org", Version: "v1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return object.New[thing](api, "things").In("shop")
}

// What is asked of the API server, to the last header and parameter.
func TestRequests(t *testing.T) {
	const asJSON = "application/json"
	for name, row := range map[string]struct {
		do     func(ctx context.Context, c object.Client[thing]) error
		want   string // Method, path and parameters.
		accept string
		body   string
	}{
		"create": {func(ctx context.Context, c object.Client[thing]) error {
			_, err := c.Create(ctx, &thing{Meta: object.Meta{Name: "a"}, Color: "<red>"})
			return err
		}, "POST /apis/example.org/v1/namespaces/shop/things", asJSON, `{"metadata":{"name":"a"},"color":"\u003cred\u003e"}`},
		"get": {func(ctx context.Context, c object.Client[thing]) error {
			_, err := c.Get(ctx, "a", "")
			return err
		}, "GET /apis/example.org/v1/namespaces/shop/things/a", asJSON, ""},
		"get from the cache": {func(ctx context.Context, c object.Client[thing]) error {
			_, err := c.Get(ctx, "a", "0")
			return err
		}, "GET /apis/example.org/v1/namespaces/shop/things/a?resourceVersion=0", asJSON, ""},
		"metadata in no namespace": {func(ctx context.Context, c object.Client[thing]) error {
			_, err := c.In("").MetaOnly().Get(ctx, "a", "")
			return err
		}, "GET /apis/example.org/v1/things/a", asJSON + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1", ""},
		"find": {func(ctx context.Context, c object.Client[thing]) error {
			_, err := c.Where("spec.nodeName", "n").Find(ctx, "a", "0")
			return err
		}, "GET /apis/example.org/v1/namespaces/shop/things?fieldSelector=metadata.name%3Da%2Cspec.nodeName%3Dn&resourceVersion=0", asJSON, ""},
		"watch": {func(ctx context.Context, c object.Client[thing]) error {
			for _, err := range c.Watch(ctx, "a", "7") {
				return err
			}
			return nil
		}, "GET /apis/example.org/v1/namespaces/shop/things?fieldSelector=metadata.name%3Da&resourceVersion=7&watch=true", asJSON, ""},
		"delete": {func(ctx context.Context, c object.Client[thing]) error { return c.Delete(ctx, "a") },
			"DELETE /apis/example.org/v1/namespaces/shop/things/a", asJSON, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := things(t, "ours", func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if got := r.Method + " " + r.URL.String(); err != nil || got != row.want || string(body) != row.body {
					t.Errorf("%s %s, want %s %s", got, body, row.want, row.body)
				}
				if got := r.Header.Get("Accept"); got != row.accept {
					t.Errorf("accepts %s, want %s", got, row.accept)
				}
				if got := r.Header.Get("Content-Type"); (got == asJSON) != (row.body != "") {
					t.Errorf("the body is %q", got)
				}
				if got := r.Header.Values("Authorization"); !slices.Equal(got, []string{"Bearer ours"}) {
					t.Errorf("asked as %q", got)
				}
				w.Header().Set("Content-Type", asJSON)
				_, _ = w.Write([]byte(`{"kind":"Status","metadata":{}}`))
			})
			if err := row.do(t.Context(), c); err != nil && name != "watch" {
				t.Error(err)
			}
		})
	}
}

// A request that brings its own token has no other credentials.
func TestATokenOfAnother(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, strings.Join(r.Header.Values("Authorization"), ","))
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{}`))
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	c := connect(t, object.Anonymous(&rest.Config{Host: server.URL, Transport: transport, BearerToken: "ours"}))
	for _, one := range []object.Client[thing]{c, c.As("theirs")} {
		if _, err := one.Create(t.Context(), &thing{}); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"", "Bearer theirs"}; !slices.Equal(asked, want) {
		t.Errorf("asked as %q, want %q", asked, want)
	}
}

// The API server's refusals keep their reasons; what is no answer of one is an error, too.
func TestRefusals(t *testing.T) {
	const refusal = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no such thing","reason":"NotFound","code":404}`
	for name, row := range map[string]struct {
		code         int
		kind, answer string
		is           func(error) bool
	}{
		"a status":             {http.StatusNotFound, "application/json", refusal, apierrors.IsNotFound},
		"a text":               {http.StatusForbidden, "text/plain", "no", apierrors.IsForbidden},
		"another's page":       {http.StatusOK, "text/html", "<html>", func(err error) bool { return err != nil }},
		"nothing":              {http.StatusOK, "application/json", "", func(err error) bool { return err != nil }},
		"an object, cut short": {http.StatusOK, "application/json", `{"color":`, func(err error) bool { return err != nil }},
	} {
		c := things(t, "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", row.kind)
			w.WriteHeader(row.code)
			_, _ = w.Write([]byte(row.answer))
		})
		_, got := c.Get(t.Context(), "a", "")
		_, created := c.Create(t.Context(), &thing{})
		_, found := c.Find(t.Context(), "a", "")
		for _, err := range []error{got, created, found} {
			if !row.is(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := c.Delete(t.Context(), "a"); row.code != http.StatusOK && !row.is(err) {
			t.Errorf("%s: delete: %v", name, err)
		}
	}
}

// All clients of a process share a connection, by HTTP/2: a watch takes none for itself. net/http dials another where
// a request comes just before it has noted that the first connection can be shared.
func TestOneConnection(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("by %s", r.Proto)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"type":"ADDED","object":{"color":"red"}}`))
		w.(http.Flusher).Flush()
		if r.URL.Query().Has("watch") {
			<-r.Context().Done()
		}
	}))
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	config := &rest.Config{Host: server.URL, BearerToken: "ours", TLSClientConfig: rest.TLSClientConfig{CAData: root}}
	watchAll(t, config, 10)
	if n := connections.Load(); n > 2 {
		t.Errorf("%d connections", n)
	}
	transport, err := rest.TransportFor(config) // It is shared, and so is not closed by its clients.
	if err != nil {
		t.Fatal(err)
	}
	utilnet.CloseIdleConnectionsFor(transport)
}

// watchAll has n clients watch at the same time, and each of them, and an anonymous one, get an object meanwhile.
func watchAll(t *testing.T, config *rest.Config, n int) {
	for _, err := range connect(t, config).Watch(t.Context(), "a", "") {
		if err != nil {
			t.Error(err)
		}
		for _, one := range []*rest.Config{config, object.Anonymous(config)} {
			if _, err := connect(t, one).Get(t.Context(), "a", ""); err != nil {
				t.Error(err)
			}
		}
		if n > 1 {
			watchAll(t, config, n-1)
		}
		break
	}
}

func TestWatch(t *testing.T) {
	type seen struct {
		Events []object.Event[*thing]
		Error  string
	}
	red := object.Event[*thing]{Object: &thing{Meta: object.Meta{Name: "a"}, Color: "red"}}
	gone := object.Event[*thing]{Deleted: true, Object: red.Object}
	const text = `{"metadata":{"name":"a","managedFields":[{"fieldsV1":{"f:color":{}}}]},"color":"red"}`
	for name, row := range map[string]struct {
		stream string
		want   seen
	}{
		"its kinds": {`{"type":"ADDED","object":` + text + `}` + "\n" + `{"type":"MODIFIED","object":` + text + `} {"type":"DELETED","object":` + text + `}`,
			seen{Events: []object.Event[*thing]{red, red, gone}}},
		"the other order, and a field more": {`{"new":{"a":[1]},"object":` + text + `,"type":"DELETED"}`, seen{Events: []object.Event[*thing]{gone}}},
		"cut short":                         {`{"type":"ADDED","object":` + text + `}{"type":"MODIFIED","object":{"metadata":{"na`, seen{Events: []object.Event[*thing]{red}}},
		"cut short after the type":          {`{"type":"ADDED"`, seen{}},
		"too old": {`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old","reason":"Expired","code":410}}`,
			seen{Error: "too old"}},
		"too old, in the other order": {`{"object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410},"type":"ERROR"}`,
			seen{Error: "too old"}},
		"unknown":          {`{"type":"BOOKMARK","object":` + text + `}`, seen{Error: `unknown event "BOOKMARK"`}},
		"without a type":   {`{"object":` + text + `}`, seen{Error: `unknown event ""`}},
		"without anything": {`{}`, seen{Error: `an event "" has no object`}},
		"without an object": {`{"type":"ADDED"}`,
			seen{Error: `an event "ADDED" has no object`}},
		"garbage": {`<html>`, seen{Error: "invalid character '<' looking for beginning of value"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := things(t, "", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(row.stream))
			})
			var got seen
			for e, err := range c.Watch(t.Context(), "a", "") {
				if err != nil {
					got.Error = err.Error()
					if strings.Contains(row.stream, "410") && !apierrors.IsResourceExpired(err) {
						t.Errorf("%v is not what the API server said", err)
					}
					continue
				}
				got.Events = append(got.Events, e)
			}
			if g, w := asText(t, got), asText(t, row.want); g != w {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
}

func asText(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A watch ends with its context, and when the loop is left; the API server sees both.
func TestTheEndOfAWatch(t *testing.T) {
	ended := make(chan struct{}, 2)
	c := things(t, "", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"type":"ADDED","object":{}}`))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})
	for _, err := range c.Watch(t.Context(), "a", "") {
		if err != nil {
			t.Error(err)
		}
		break
	}
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	for _, err := range c.Watch(ctx, "a", "") {
		if ctx.Err() == nil && err != nil {
			t.Error(err)
		}
		cancel()
	}
	cancel()
	<-ended
}
