package main

// The numbers that are measured, by their names.
const (
	serial      = "publish, one by one"
	rate        = "publish, at once"
	cpuTotal    = "publish: CPU of the driver"
	cpuUser     = "publish: CPU, user"
	cpuSystem   = "publish: CPU, system"
	parsePlain  = "parse, plain"
	parseMany   = "parse, 256 attributes"
	again       = "publish again, one by one"
	againAtOnce = "publish again, at once"
	unpublishes = "unpublish, at once"
	idleCPU     = "volumes held: CPU"
	watches     = "volumes held: watches"
	openFiles   = "volumes held: open files"
	statsCPU    = "volumes held: CPU of the kubelet's calls"
	resident    = "volumes held: memory, resident"
	groupTotal  = "volumes held: memory, cgroup"
	groupVolume = "volumes held: memory, cgroup, a volume"
	cpuAfter    = "volumes held, after others waited: CPU"
	watchAfter  = "volumes held, after others waited: watches"
	filesAfter  = "volumes held, after others waited: open files"
	restartCPU  = "restart: CPU"
	registered  = "restart: until registered"
	pushed      = "CA certificates changed: until all volumes have them"
	localRate   = "local signer, at once"
)

// A limit is what the first driver's median should be at most, or at least.
type limit struct {
	Value   float64
	OfRatio bool // It is the limit of the ratio to the floor.
	AtLeast bool
}

// A row is one number in the order of the table.
type row struct {
	name, unit string
	limit      *limit // nil: none is set.
}

func rows() []row {
	return []row{
		{serial, "ms", &limit{1.1, true, false}},
		{rate, "/s", &limit{0.95, true, true}},
		{cpuTotal, "ms", &limit{2, false, false}},
		{cpuUser, "ms", nil},
		{cpuSystem, "ms", nil},
		{parsePlain, "µs", &limit{50, false, false}},
		{parseMany, "µs", &limit{1000, false, false}},
		{again, "ms", &limit{0.5, false, false}},
		{againAtOnce, "ms", &limit{2, false, false}},
		{unpublishes, "ms", &limit{10, false, false}},
		{idleCPU, "% of a core", &limit{0.1, false, false}},
		{watches, "open", &limit{0, false, false}},
		{openFiles, "open", nil},
		{statsCPU, "% of a core", nil},
		{resident, "MiB", &limit{40, false, false}},
		{groupTotal, "MiB", nil},
		{groupVolume, "kB", &limit{45, false, false}},
		{cpuAfter, "% of a core", &limit{0.1, false, false}},
		{watchAfter, "open", &limit{0, false, false}},
		{filesAfter, "open", &limit{1, true, false}},
		{restartCPU, "s", &limit{0.35, false, false}},
		{registered, "s", &limit{1, false, false}},
		{pushed, "ms", &limit{2000, false, false}},
		{localRate, "/s", &limit{1500, false, true}},
	}
}

// A series is what was measured for one row, by rounds.
type series struct {
	floor  []float64 // One value a round; or one more, measured before, between and after the rounds.
	values map[string][]float64
}

// measured are all series, by the names of their rows.
type measured map[string]*series

func (m measured) of(row string) *series {
	if m[row] == nil {
		m[row] = &series{values: map[string][]float64{}}
	}
	return m[row]
}

func (m measured) add(row, driver string, value float64) {
	s := m.of(row)
	s.values[driver] = append(s.values[driver], value)
}

func (m measured) addFloor(row string, value float64) {
	s := m.of(row)
	s.floor = append(s.floor, value)
}

// addCPU adds what one publish costs.
func (m measured) addCPU(driver string, c cpuTime) {
	m.add(cpuTotal, driver, milli(c.total()))
	m.add(cpuUser, driver, milli(c.user))
	m.add(cpuSystem, driver, milli(c.system))
}

// addFloorCPU adds what one publish costs without a driver.
func (m measured) addFloorCPU(c cpuTime) {
	m.addFloor(cpuTotal, milli(c.total()))
	m.addFloor(cpuUser, milli(c.user))
	m.addFloor(cpuSystem, milli(c.system))
}

// ratios are a driver's rounds as multiples of the floor's: of the same round, or of the mean of the floors before and
// after it.
func (s *series) ratios(driver string) (all []float64) {
	values := s.values[driver]
	for i, v := range values {
		switch len(s.floor) {
		case len(values):
			all = append(all, v/s.floor[i])
		case len(values) + 1:
			all = append(all, v/((s.floor[i]+s.floor[i+1])/2))
		}
	}
	return all
}
