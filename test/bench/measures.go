package main

import (
	"context"
	"fmt"
	"time"

	"errand.dev/errand/test/benchrig"
)

// start measures errand serve from exec to ready, with an empty data directory.
func (b *bench) start(ctx context.Context) error {
	var figures benchrig.Figures
	for range b.runs {
		if err := b.With(ctx, func(r *benchrig.Run) error {
			figures = append(figures, ms(r.StartTime))
			return nil
		}); err != nil {
			return err
		}
	}
	b.row("errand serve, empty data directory → ready, node Ready", "1000 ms", "ms", figures)
	return nil
}

// job measures the tour's Job from the patch that resumes it to Complete.
func (b *bench) job(ctx context.Context) error {
	return b.With(ctx, func(r *benchrig.Run) error {
		client, err := r.Client()
		if err != nil {
			return err
		}
		var figures benchrig.Figures
		for i := range b.runs + 1 {
			took, err := benchrig.Resume(ctx, client, fmt.Sprintf("echo-%d", i))
			if err != nil {
				return err
			}
			if i > 0 { // the first pulls the image
				figures = append(figures, ms(took))
			}
		}
		b.row("the tour's Job (2 pods, image present), patch → Complete", "300 ms", "ms", figures)
		return nil
	})
}

// bare measures the OCI runtime alone, with as many containers as there are pods
// in the Job of many.
func (b *bench) bare(ctx context.Context) error {
	for range b.runs {
		alone, err := b.Bare(ctx, b.runtime, b.pods)
		if err != nil {
			return err
		}
		b.bareRates = append(b.bareRates, alone.Rate)
		b.bareCPU = append(b.bareCPU, ms(alone.CPU))
	}
	b.row(fmt.Sprintf("the OCI runtime alone, %d containers, %d at a time", b.pods, benchrig.BareAtATime), "", "containers/s", b.bareRates)
	b.row("of that, CPU a container", "", "ms", b.bareCPU)
	return nil
}

// parallelism is how many pods of the Job of many run at a time.
const parallelism = 20

// throughput measures one Job of many short pods, started by errand itself and by the OCI runtime, and who spends what on each.
func (b *bench) throughput(ctx context.Context) error {
	own, err := b.many(ctx)
	if err != nil {
		return err
	}
	job := fmt.Sprintf("one Job of %d echo pods, parallelism %d", b.pods, parallelism)
	b.row(job, "25 pods/s", "pods/s", own.rates)
	b.report(own)
	foreign, err := b.many(ctx, "--native-launcher=false")
	if err != nil {
		return err
	}
	b.row("the same by the OCI runtime (--native-launcher=false)", "", "pods/s", foreign.rates)
	// Where runc takes 50 ms of two cores for a container, the goals are 25 pods
	// of 40 containers a second, and 80 ms a pod.
	b.row("of the rate of the OCI runtime alone", "62 %", "%", foreign.rates.Scaled(100/b.bareRates.Median()))
	b.row("CPU of the whole machine a pod, of the runtime's alone a container", "160 %", "%", foreign.machine.Scaled(100/b.bareCPU.Median()))
	b.report(foreign)
	return nil
}

// spending is what Jobs of many short pods took, one figure a run: pods a second, and ms of CPU a pod.
type spending struct{ rates, machine, errand, shim, groups benchrig.Figures }

func (b *bench) report(s *spending) {
	b.row("of that, CPU a pod: whole machine", "", "ms", s.machine)
	b.row("the container, and an OCI runtime that starts it", "", "ms", s.groups)
	b.row("errand", "", "ms", s.errand)
	b.row("errand-shim", "", "ms", s.shim)
}

// many runs the Job in errands of their own, with further flags.
func (b *bench) many(ctx context.Context, flags ...string) (*spending, error) {
	s := &spending{}
	for range b.runs {
		err := b.With(ctx, func(r *benchrig.Run) error {
			one, err := benchrig.Many(ctx, r, b.pods, parallelism)
			s.rates = append(s.rates, one.Rate)
			s.machine = append(s.machine, ms(one.Machine))
			s.errand = append(s.errand, ms(one.Errand))
			s.shim = append(s.shim, ms(one.Shim))
			s.groups = append(s.groups, ms(one.Groups))
			return err
		}, flags...)
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// settle is how long an errand is left alone before its rest is measured.
const settle = 10 * time.Second

// atRest measures what an errand costs that has nothing to do.
func (b *bench) atRest(ctx context.Context) error {
	return b.With(ctx, func(r *benchrig.Run) error {
		if err := benchrig.Pass(ctx, settle); err != nil {
			return err
		}
		var resident, anonymous, cpu benchrig.Figures
		for range b.runs {
			before, err := benchrig.Look(r.Errand)
			if err != nil {
				return err
			}
			if err := benchrig.Pass(ctx, b.idle); err != nil {
				return err
			}
			after, err := benchrig.Look(r.Errand)
			if err != nil {
				return err
			}
			spent := after.Errand + after.Shim - before.Errand - before.Shim
			cpu = append(cpu, ms(spent)*float64(time.Minute)/float64(b.idle))
			held := after.ErrandMemory.Add(after.ShimMemory)
			resident = append(resident, float64(held.Resident)/1e6)
			anonymous = append(anonymous, float64(held.Anonymous)/1e6)
		}
		b.row("idle: RSS of errand and errand-shim", "150 MB", "MB", resident)
		b.row("of that, anonymous memory (the rest is the programs' own pages)", "", "MB", anonymous)
		b.row("idle: CPU a minute, errand and errand-shim", "300 ms", "ms", cpu)
		return nil
	})
}

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
