package renew

import (
	"fmt"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// due is an entry with a certificate of an hour of which so many minutes have gone by.
	due := func(minutes int, s Shares) *entry {
		begins := now.Add(-time.Duration(minutes) * time.Minute)
		return &entry{Entry: Entry{At: begins.Add(40 * time.Minute), Begins: begins, Ends: begins.Add(time.Hour)}, shares: s.of("v")}
	}
	short := &entry{Entry: Entry{At: now, Begins: now.Add(-7 * time.Second), Ends: now.Add(3 * time.Second)}}
	without := func(at time.Duration) *entry { return &entry{Entry: Entry{At: now.Add(at)}} }
	shop, web := Shares{"shop", "web", "ca"}, Shares{"shop", "db", "ca"}
	other, silent := Shares{"other", "pod", "ca"}, Shares{"shop", "web", "silent"}
	starts := func(all ...share) usage {
		u := usage{shares: map[share]use{}}
		for _, s := range all {
			u.shares[s] = use{starts: startWeight}
		}
		return u
	}
	running := func(n int, s Shares) usage {
		u := usage{shares: map[share]use{}}
		for range n {
			u.add(s.of("w"), use{running: 1})
		}
		return u
	}
	for name, row := range map[string]struct {
		entries map[string]*entry
		usage   usage
		want    string // Empty: none.
	}{
		"nothing":                    {nil, starts(), ""},
		"nothing is due":             {map[string]*entry{"a": due(39, shop)}, starts(), ""},
		"set after now":              {map[string]*entry{"a": {Entry: Entry{At: now.Add(time.Hour)}, setAt: now.Add(time.Minute)}}, starts(), "a"},
		"less of its life left":      {map[string]*entry{"a": due(41, shop), "b": due(50, shop)}, starts(), "b"},
		"a longer life":              {map[string]*entry{"a": due(50, shop), "b": short}, starts(), "a"},
		"a shorter life":             {map[string]*entry{"a": due(41, shop), "b": short}, starts(), "b"},
		"ended":                      {map[string]*entry{"a": due(90, shop), "b": due(41, shop)}, starts(), "b"},
		"both ended":                 {map[string]*entry{"a": due(90, shop), "b": due(91, shop)}, starts(), "b"},
		"without a certificate":      {map[string]*entry{"a": without(-time.Hour), "b": due(41, Shares{})}, starts(), "b"},
		"both without a certificate": {map[string]*entry{"a": without(-time.Hour), "b": without(-time.Minute)}, starts(), "a"},
		"the namespace had starts": {map[string]*entry{"a": due(50, shop), "b": due(41, other)},
			starts(share{ofNamespace, "shop"}), "b"},
		"the volume had starts": {map[string]*entry{"a": due(50, shop), "b": {Entry: due(41, shop).Entry, shares: shop.of("b")}},
			starts(share{ofVolume, "v"}), "b"},
		"the pod had starts":              {map[string]*entry{"a": due(50, shop), "b": due(41, web)}, starts(share{ofPod, "web"}), "b"},
		"the issuer had starts":           {map[string]*entry{"a": due(50, silent), "b": due(41, shop)}, starts(share{ofIssuerThere, "shop\nsilent"}), "b"},
		"the issuer had starts elsewhere": {map[string]*entry{"a": due(50, silent), "b": due(41, shop)}, starts(share{ofIssuer, "silent"}), "b"},
		"the issuer has the name of a namespace that had": {map[string]*entry{"a": due(50, Shares{Issuer: "shop"}), "b": due(41, Shares{})},
			starts(share{ofNamespace, "shop"}), "a"},
		"an ended one of a namespace without starts": {map[string]*entry{"a": due(90, other), "b": due(50, shop)},
			starts(share{ofNamespace, "shop"}), "a"},
		"all workers are busy":                   {map[string]*entry{"a": due(50, Shares{})}, running(16, Shares{}), ""},
		"the last worker":                        {map[string]*entry{"a": due(50, other)}, running(15, silent), "a"},
		"the issuer has half of what is free":    {map[string]*entry{"a": due(50, silent)}, running(6, Shares{Issuer: "silent"}), ""},
		"and less":                               {map[string]*entry{"a": due(50, silent)}, running(5, Shares{Issuer: "silent"}), "a"},
		"another issuer in namespace and pod":    {map[string]*entry{"a": due(50, silent), "b": due(41, shop)}, running(6, silent), "b"},
		"the pod has what is free":               {map[string]*entry{"a": due(50, shop)}, running(8, Shares{Pod: "web"}), ""},
		"another pod in the namespace":           {map[string]*entry{"a": due(50, shop), "b": due(41, web)}, running(8, Shares{"shop", "web", ""}), "b"},
		"the namespace has twice what is free":   {map[string]*entry{"a": due(50, shop)}, running(11, Shares{Namespace: "shop"}), ""},
		"another namespace, and nothing is left": {map[string]*entry{"a": due(50, shop), "b": due(41, other)}, running(11, Shares{Namespace: "shop"}), "b"},
	} {
		if got, ok := pick(row.entries, row.usage, 16, now); got != row.want || ok != (row.want != "") {
			t.Errorf("%s: %q (%v), want %q", name, got, ok, row.want)
		}
	}
}

// Starts count half as much each minute, and shares that use nothing are forgotten.
func TestStartsAreForgotten(t *testing.T) {
	now := time.Now()
	u := usage{shares: map[share]use{}}
	u.age(now)
	s := Shares{"shop", "web", "ca"}.of("v")
	for range 3 {
		u.start(s)
	}
	u.end(s)
	for after, want := range []int{48, 24, 12, 6, 3, 1, 0, 0} {
		u.age(now.Add(time.Duration(after)*time.Minute + 30*time.Second))
		if got := u.of(s)[ofPod]; got != (use{2, want}) {
			t.Errorf("after %d minutes: %+v, want 2 running and starts of %d", after, got, want)
		}
	}
	u.end(s)
	u.end(s)
	if len(u.shares) != 0 || u.running != 0 {
		t.Errorf("left: %+v", u)
	}
	u.start(s)
	u.end(s)
	u.age(now.Add(1000 * time.Hour))
	if len(u.shares) != 0 {
		t.Errorf("left after a long time: %+v", u)
	}
}

// However many issuers are silent one after the other, the next finds a worker until very few are left.
func TestWorkersAreDivided(t *testing.T) {
	const workers = 64
	u := usage{shares: map[share]use{}}
	var held []int
	for i := range 8 {
		s := Shares{Namespace: fmt.Sprint(i), Pod: fmt.Sprint(i), Issuer: fmt.Sprint(i)}.of(fmt.Sprint(i))
		n := 0
		for ; u.of(s).allows(workers - u.running); n++ {
			u.start(s)
		}
		held = append(held, n)
	}
	if held[0] < workers/4 || held[0] > workers/2 || held[7] == 0 {
		t.Errorf("issuers hold %v", held)
	}
}
