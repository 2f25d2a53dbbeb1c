package main

import (
	"context"
	"time"
)

// hold watches drivers that have volumes and nothing to do, and then has them answer the kubelet's calls, between
// rounds of the floor.
func (b *bench) hold(ctx context.Context) error {
	if err := b.answerFloor(ctx); err != nil {
		return err
	}
	for range b.rounds {
		if err := b.eachDriver(func(d *driver) error { return b.holdRound(ctx, d) }); err != nil {
			return err
		}
		if err := b.answerFloor(ctx); err != nil {
			return err
		}
	}
	return nil
}

// statsInterval is how long the kubelet waits on average until it asks for a volume's statistics again
// (kubernetes pkg/kubelet/server/stats/volume_stat_calculator.go: a minute, and up to once more as jitter).
const statsInterval = 90 * time.Second

func (b *bench) holdRound(ctx context.Context, d *driver) error {
	if err := d.settle(ctx); err != nil {
		return err
	}
	idle, err := b.idleOf(ctx, d)
	if err != nil {
		return err
	}
	b.add(idleCPU, d.name, idle.cpu)
	if d.process != nil { // Whose watches the others' are, nobody can tell.
		b.add(watches, d.name, idle.watches)
	}
	b.add(openFiles, d.name, idle.files)
	memory, err := d.resident()
	if err != nil {
		return err
	}
	b.add(resident, d.name, memory/(1<<20))
	if d.group != nil {
		if memory, err = d.charged(); err != nil {
			return err
		}
		b.add(groupTotal, d.name, memory/(1<<20))
	}
	stats, republish, err := b.answer(ctx, d)
	b.add(statsCPU, d.name, stats)
	b.add(againAtOnce, d.name, republish)
	return err
}

// answerFloor measures what calls cost that do next to nothing.
func (b *bench) answerFloor(ctx context.Context) error {
	stats, republish, err := b.answer(ctx, b.bare)
	b.addFloor(statsCPU, stats)
	b.addFloor(againAtOnce, republish)
	return err
}

// answer has a driver answer the kubelet's calls for its volumes: those for statistics, whose CPU is counted, in
// percent of a core, and those that publish them once more, of which the median time counts, in ms.
func (b *bench) answer(ctx context.Context, d *driver) (stats, republish float64, err error) {
	cpu, err := d.spent(func() error {
		_, err := b.each(b.volumes, func(i int) error { return d.Stats(ctx, d.Driver, b.held(d, i)) })
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	var all []time.Duration
	for range 4 { // One pass is over in a moment.
		took, err := b.publish(ctx, d, 0, b.volumes)
		if err != nil {
			return 0, 0, err
		}
		all = append(all, took...)
	}
	return 100 * cpu.total().Seconds() / statsInterval.Seconds(), median(milliseconds(all)), nil
}

// restart ends the driver that is ours and starts it again over its volumes.
func (b *bench) restart(ctx context.Context) error {
	return b.eachDriver(func(d *driver) error {
		if d.process == nil {
			return nil
		}
		for range b.rounds {
			if err := b.restart1(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) restart1(ctx context.Context, d *driver) error {
	if err := d.stop(); err != nil {
		return err
	}
	took, err := timed(func() error { return d.start(ctx) })
	if err != nil {
		return err
	}
	b.add(registered, d.name, took.Seconds())
	if err := d.settle(ctx); err != nil {
		return err
	}
	cpu, err := d.cpu()
	b.add(restartCPU, d.name, cpu.total().Seconds())
	return err
}

// empty unpublishes the volumes, a part in each round, between rounds of the floor.
func (b *bench) empty(ctx context.Context) error {
	floor := func(round int) error {
		took, err := b.unpublish(ctx, b.bare, round*b.part(), b.part())
		b.addFloor(unpublishes, median(milliseconds(took)))
		return err
	}
	if err := floor(0); err != nil {
		return err
	}
	for round := range b.rounds {
		err := b.eachDriver(func(d *driver) error {
			took, err := b.unpublish(ctx, d, round*b.part(), b.part())
			b.add(unpublishes, d.name, median(milliseconds(took)))
			return err
		})
		if err != nil {
			return err
		}
		if err := floor(round + 1); err != nil {
			return err
		}
	}
	return nil
}
