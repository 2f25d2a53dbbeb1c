package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A step is something that happens. It is drawn as often as its weight says; do reports whether it could happen.
type step struct {
	name   string
	weight int
	do     func(w *world) bool
}

// steps are all steps.
func steps() []step {
	return []step{
		{"a pod comes", 100, (*world).comes},
		{"publish again", 100, (*world).again},
		{"a pod goes", 60, (*world).goes},
		{"hang up", 15, (*world).hangUp},
		{"another mood of an issuer", 40, (*world).otherMood},
		{"another state of the API server", 30, (*world).otherState},
		{"another source of CA certificates", 10, (*world).otherTrust},
		{"a request is deleted", 10, (*world).deleteRequest},
		{"restart", 15, (*world).restart},
		{"another node plugin starts", 10, (*world).second},
		{"kill", 30, (*world).kill},
		{"renewals are wished", 20, (*world).wish},
		{"fill", 15, (*world).fill},
		{"empty", 30, (*world).empty},
		{"unmount what the pod has", 10, func(w *world) bool {
			return w.unmount(func(s *slot) string { return w.Target(s.Volume) })
		}},
		{"unmount the tmpfs", 5, func(w *world) bool {
			return w.unmount(func(s *slot) string { s.full = false; return w.dir(s) })
		}},
		{"no file can be opened", 10, (*world).starve},
		{"a pod vanishes", 5, (*world).vanishes},
		{"the clock jumps", 15, (*world).jump},
		{"all is well for long", 1, (*world).recover},
	}
}

// take takes a step and lets time go by.
func (w *world) take() {
	all, total := steps(), 0
	for _, s := range all {
		total += s.weight
	}
	for done := false; !done; {
		n := w.rand.IntN(total)
		for _, s := range all {
			if n -= s.weight; n < 0 {
				w.note("%s", s.name)
				done = s.do(w)
				break
			}
		}
	}
	switch n := w.rand.IntN(100); {
	case n < 60:
		w.pass(w.span(2 * time.Second))
	case n < 99:
		w.pass(w.span(time.Minute))
	default:
		w.pass(w.span(30 * time.Minute))
	}
}

// pass lets time go by. A node plugin that was killed meanwhile is replaced.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	w.quiesce()
	w.api.mu.Lock()
	dead := w.api.dead
	w.api.mu.Unlock()
	if dead {
		w.replace()
	}
}

// any returns a slot of those of which is is true; nil: there is none.
func (w *world) any(is func(*slot) bool) *slot {
	var found []*slot
	for _, s := range w.slots {
		if is(s) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[w.rand.IntN(len(found))]
}

// idle returns a pod for which no call is under way.
func (w *world) idle() *slot { return w.any(func(s *slot) bool { return s.exists && s.call == nil }) }

func (w *world) comes() bool {
	s := w.any(func(s *slot) bool { return !s.exists })
	if s == nil || w.running == nil {
		return false
	}
	w.api.collect(s.UID)
	w.buried = slices.DeleteFunc(w.buried, func(b burial) bool { return b.slot.UID == s.UID })
	*s = slot{Volume: s.Volume, exists: true, came: time.Now()}
	if s.UID == "" || w.chance(80) { // Else the pod of before comes back, as static pods do.
		w.uids++
		s.Pod = kubelet.Pod{Namespace: "shop", Name: fmt.Sprint("web-", w.uids), UID: fmt.Sprintf("3b2f6a5e-0001-4c5e-9d3e-%012d", w.uids), ServiceAccount: "web"}
	}
	durations := []string{"2m", "10m", "1h", "6h", "24h"}
	s.Attributes = map[string]string{
		name + "/dns-names": "web.shop.svc", name + "/layout": "pem,bundle", name + "/duration": durations[w.rand.IntN(len(durations))],
		name + "/key-usages": "digital signature,server auth", // A usage that is asked for by name is not optional.
	}
	for _, a := range [][2]string{
		{"/issuer-name", "ca"}, {"/reuse-private-key", "true"}, {"/renew-before", "30s"}, {"/trust", "issuer,file:corp"},
	} {
		if w.chance(30) {
			s.Attributes[name+a[0]] = a[1]
		}
	}
	w.note("  %s: %v", s.UID, s.Attributes)
	w.publish(s)
	return true
}

func (w *world) again() bool {
	s := w.idle()
	if s != nil {
		w.publish(s)
	}
	return s != nil
}

func (w *world) goes() bool {
	s := w.idle()
	if s != nil {
		w.note("  %s", s.UID)
		w.unpublish(s)
	}
	return s != nil
}

// hangUp ends all calls, as a restart of the kubelet does.
func (w *world) hangUp() bool {
	for _, s := range w.slots {
		if s.call != nil {
			s.call.cancel()
		}
	}
	return true
}

func (w *world) otherMood() bool {
	moods := []mood{signs, signs, signs, signs, delays, mute, denies, fails, rejects, forges, forges, forges, deletes}
	issuer, m := []string{"ca", "other"}[w.rand.IntN(2)], moods[w.rand.IntN(len(moods))]
	w.note("  %s %s", issuer, m)
	w.api.setMood(issuer, m)
	return true
}

func (w *world) otherState() bool {
	states := []string{fine, fine, fine, slow, flaky, flaky, down, silent, forbidden}
	state := states[w.rand.IntN(len(states))]
	w.note("  %s", state)
	w.api.set(state)
	return true
}

func (w *world) deleteRequest() bool {
	s := w.idle()
	if s == nil {
		return false
	}
	w.api.collect(s.UID)
	return true
}

// restart stops the node plugin, and starts one with other flags after some time, perhaps one of another version.
func (w *world) restart() bool {
	if w.running == nil {
		return false
	}
	w.end(w.running)
	w.await()
	w.between()
	if w.chance(30) {
		time.Sleep(w.span(2 * time.Hour))
	}
	w.proceed()
	return true
}

// proceed lets the next node plugin run, that which waits if there is one.
func (w *world) proceed() {
	before, now := w.running, time.Now()
	w.running, w.next = w.next, nil
	if w.running == nil {
		w.running = w.start()
	}
	if w.running.issuer != before.issuer {
		w.turned = now
	}
	time.Sleep(1100 * time.Millisecond) // It looks once a second whether the state directory is free.
}

// second starts another node plugin on the same state directory, or stops that for which it waits.
func (w *world) second() bool {
	if w.next == nil {
		w.next = w.start()
		return true
	}
	w.end(w.running)
	w.await()
	w.proceed()
	return true
}

// kill has the node plugin killed at one of its next calls of the API server.
func (w *world) kill() bool {
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	w.api.dying = 1 + w.rand.IntN(6)
	return true
}

// replace ends a node plugin that was killed, and starts the next one. Nothing of what it did after its death counts.
func (w *world) replace() {
	w.note("killed")
	w.end(w.running)
	w.await()
	w.between()
	w.proceed()
}

// between leaves a volume as another version would have, or a clock that was ahead, while no node plugin runs. The clock
// may jump, too.
func (w *world) between() {
	if w.chance(20) {
		w.note("  the clock jumps")
		w.setClock()
	}
	s := w.any(func(s *slot) bool { _, ok := w.record(s); return s.exists && ok && s.set != nil && !s.full })
	if s == nil || w.next != nil {
		return
	}
	switch w.rand.IntN(5) {
	case 0:
		w.note("  a newer node plugin had %s", s.UID)
		s.strange = true
		w.rewrite(s, func(record map[string]any) { record["version"], record["shape"] = 2, "round" })
	case 1:
		w.note("  an older node plugin had %s", s.UID)
		w.older(s)
	case 2:
		r, _ := w.record(s)
		if r.IssuedAt.IsZero() || !s.set.end.After(r.IssuedAt) {
			return
		}
		ahead, left := w.span(s.set.end.Sub(r.IssuedAt)), float64(s.set.end.Sub(r.RenewAt))/float64(s.set.end.Sub(r.IssuedAt))
		w.note("  the clock was %s ahead, as %s has it", ahead, s.UID)
		r.IssuedAt, r.RenewAt = r.IssuedAt.Add(ahead), r.RenewAt.Add(time.Duration(float64(ahead)*left))
		r.RenewAt = renew.Earlier(r.RenewAt, s.latest(r.IssuedAt, s.set.end))
		if r.Failure != nil {
			r.Failure.At, r.Failure.RetryAt = r.Failure.At.Add(ahead), r.Failure.RetryAt.Add(ahead)
		}
		w.must(store.WriteRecord(files.Dir(w.dir(s)), r))
	}
}

// jump sets the wall clock while a node plugin runs, and demands that what is due by it begins at once.
func (w *world) jump() bool {
	before := w.resting()
	w.setClock()
	time.Sleep(time.Second)
	w.quiesce()
	w.api.mu.Lock()
	dead := w.api.dead
	w.api.mu.Unlock()
	for _, s := range w.slots {
		r, ok := before[s]
		after, known := w.record(s)
		if ok && known && !dead && w.due(s, r) && after.Attempt == "" && reflect.DeepEqual(r.Failure, after.Failure) && r.IssuedAt.Equal(after.IssuedAt) {
			w.fail("%s is due since the clock was set a second ago, and nothing has begun: it is valid from %s to %s, to be renewed at %s, %+v", s.UID, s.set.begin, s.set.end, r.RenewAt, r.Failure)
		}
	}
	return true
}

// due reports whether a volume with such a record is due.
func (w *world) due(s *slot, r store.Record) bool {
	now := w.clock.Now()
	if r.Failure != nil {
		return r.Failure.At.After(now) || !r.Failure.RetryAt.After(now)
	}
	return !s.set.validAt(now) || !r.RenewAt.IsZero() && !r.RenewAt.After(now)
}

// resting returns the records of the volumes that have a pair and for which nothing is under way.
func (w *world) resting() map[*slot]store.Record {
	found := map[*slot]store.Record{}
	for _, s := range w.slots {
		since, ok := w.servesSince()
		r, known := w.record(s)
		if ok && time.Since(since) > late && s.exists && s.call == nil && known && s.set != nil && r.Attempt == "" {
			found[s] = r
		}
	}
	return found
}

// setClock sets the wall clock forward or back, by minutes or hours.
func (w *world) setClock() {
	d := w.span([]time.Duration{10 * time.Minute, time.Hour, 12 * time.Hour}[w.rand.IntN(3)])
	w.mu.Lock()
	if w.chance(50) {
		d, w.latest = -d, renew.Later(w.latest, w.clock.Now())
	}
	w.mu.Unlock()
	w.clock.Jump(d)
	w.jumped = time.Now()
	w.note("  by %s, to %s", d, w.clock.Now().Format(time.RFC3339Nano))
}

// rewrite changes the record of a volume.
func (w *world) rewrite(s *slot, change func(map[string]any)) {
	path, record := filepath.Join(w.dir(s), "record.json"), map[string]any{}
	text, err := os.ReadFile(path)
	w.must(err)
	w.must(json.Unmarshal(text, &record))
	change(record)
	text, err = json.Marshal(record)
	w.must(err)
	w.must(os.WriteFile(path, text, 0o600))
}

// older gives the files of a volume the names that they had before a pair was named after its generation.
func (w *world) older(s *slot) {
	const number = "2855649945"
	data, current := filepath.Join(w.dir(s), "data"), filepath.Join(w.dir(s), "data", "..data")
	generation, err := os.Readlink(current)
	w.must(err)
	generation = strings.TrimPrefix(generation, "..")
	if generation == number {
		return
	}
	w.must(os.Rename(filepath.Join(data, ".."+generation), filepath.Join(data, ".."+number)))
	w.must(os.Symlink(".."+number, current+".new"))
	w.must(os.Rename(current+".new", current))
	w.must(os.Rename(filepath.Join(w.dir(s), "pair."+generation), filepath.Join(w.dir(s), "pair.pem")))
	w.must(os.Rename(filepath.Join(w.dir(s), "trust."+generation), filepath.Join(w.dir(s), "trust.json")))
	w.rewrite(s, func(record map[string]any) { delete(record, "resolved") })
}

func (w *world) wish() bool {
	s := w.idle()
	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	if s == nil || w.pods.renew == nil {
		return false
	}
	w.pods.renew(signer.Pod{Namespace: s.Namespace, Name: s.Pod.Name, UID: s.UID}, w.clock.Now(), nil)
	return true
}

// fill takes all that is left of a volume's tmpfs: its memory, or its inodes.
func (w *world) fill() bool {
	s := w.any(func(s *slot) bool { _, ok := w.record(s); return s.exists && ok && !s.full })
	if s == nil {
		return false
	}
	w.note("  %s", s.UID)
	s.full, s.blind = true, true
	dir := filepath.Join(w.dir(s), "filler")
	w.must(os.Mkdir(dir, 0o700))
	if w.chance(50) {
		for i := 0; os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600) == nil; i++ {
		}
		return true
	}
	for size, i := 16<<20, 0; size > 1; i++ {
		if err := fallocate(filepath.Join(dir, fmt.Sprint(i)), size); err != nil {
			size /= 2
		}
	}
	return true
}

// fallocate makes a file that takes memory.
func fallocate(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), 0, 0, int64(size))
}

// empty removes what fill has made.
func (w *world) empty() bool {
	s := w.any(func(s *slot) bool { return s.exists && s.full })
	if s != nil {
		s.full = false
		w.note("  %s", s.UID)
		w.must(os.RemoveAll(filepath.Join(w.dir(s), "filler")))
	}
	return s != nil
}

// starve lets time go by in which the process can't open a file.
func (w *world) starve() bool {
	for _, s := range w.slots {
		s.blind = true
	}
	w.open.RUnlock()
	w.open.Lock()
	var limit unix.Rlimit
	w.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	w.must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}))
	time.Sleep(w.span(2 * time.Minute))
	w.quiesce()
	w.must(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	w.open.Unlock()
	w.open.RLock()
	return true
}

// unmount unmounts a path of a volume, as others on the node may, and perhaps deletes it.
func (w *world) unmount(path func(*slot) string) bool {
	s := w.any(func(s *slot) bool { return s.exists && s.call == nil && s.acked })
	if s == nil {
		return false
	}
	w.note("  %s", s.UID)
	s.spoiled, s.strange = true, true
	w.must(mount.Unmount(path(s)))
	if w.chance(50) {
		_ = os.Remove(path(s)) // Not if it has files.
	}
	return true
}

// vanishes removes a pod as a kubelet does whose node plugin did not answer.
func (w *world) vanishes() bool {
	s := w.idle()
	if s == nil {
		return false
	}
	w.note("  %s", s.UID)
	w.must(mount.Unmount(w.Target(s.Volume)))
	w.must(os.RemoveAll(filepath.Join(w.Root, "pods", s.UID)))
	w.bury(s, time.Now(), true)
	s.Volume = kubelet.Volume{}
	return true
}

// recover lets all be well for longer than any backoff, and demands that every pod has a valid certificate then.
func (w *world) recover() bool {
	w.api.set(fine)
	w.corporate.set(w.api.pki.root)
	w.api.mu.Lock()
	w.api.dying = 0
	w.api.mu.Unlock()
	for _, issuer := range []string{"ca", "other"} {
		w.api.setMood(issuer, signs)
	}
	for w.empty() {
	}
	for range 15 { // Longer than the longest backoff.
		w.pass(6 * time.Minute)
		w.check()
		for _, s := range w.slots {
			if s.exists && s.call == nil && (!s.acked || s.spoiled) {
				w.publish(s)
			}
		}
	}
	w.pass(time.Minute)
	w.check()
	for _, s := range w.slots {
		if s.exists && (!s.acked || s.spoiled || s.set == nil || !s.set.validAt(w.clock.Now())) {
			w.fail("all is well for an hour and a half, and %s has %+v (acknowledged: %v)", s.UID, s.set, s.acked)
		}
	}
	return true
}

// finish ends all, and demands that nothing is left.
func (w *world) finish() {
	w.recover()
	w.restart() // Volumes of pods that have vanished go now.
	for range 10 {
		for _, s := range w.slots {
			if s.exists && s.call == nil {
				w.unpublish(s)
			}
		}
		w.pass(time.Minute)
		w.check()
	}
	w.api.mu.Lock()
	defer w.api.mu.Unlock()
	left, err := os.ReadDir(w.stateDir())
	if err != nil || len(left) > 0 || len(w.api.requests) > 0 || w.any(func(s *slot) bool { return s.exists }) != nil {
		w.fail("at the end there are %v (%v), %d requests", left, err, len(w.api.requests))
	}
}
