package keptlogs

import (
	"fmt"
	"testing"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

// What a Job's pod costs more when it goes, until there is no more room and after.
func BenchmarkKeep(b *testing.B) {
	dir := b.TempDir()
	w := &world{logs: dir + "/pods", dir: dir + "/kept"}
	jobs := informers.NewSharedInformerFactory(fake.NewClientset(), 0).Batch().V1().Jobs()
	k, err := New(Config{Dir: w.dir, MaxSize: 256 << 20, MaxRuns: defaultMaxRuns, Jobs: jobs})
	if err != nil {
		b.Fatal(err)
	}
	if err := k.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	close(k.read)
	i := 0
	for b.Loop() {
		b.StopTimer()
		r := run("j", fmt.Sprint("p", i), 0)
		log := w.writeFor(b, r, "", "a line\n")
		i++
		b.StartTimer()
		if err := k.Keep(b.Context(), r, log); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(len(k.runs)), "kept")
}

// What as many runs as there is room for cost at the start.
func BenchmarkLoad(b *testing.B) {
	const runs = defaultMaxRuns
	w := &world{logs: b.TempDir()}
	s := &store{dir: b.TempDir()}
	for i := range runs {
		r := run("j", fmt.Sprint("p", i), 0)
		name, err := r.name()
		if err != nil {
			b.Fatal(err)
		}
		if r.Files, r.Size, err = s.link(name, w.writeFor(b, r, "", "a line\n")); err != nil {
			b.Fatal(err)
		}
		if err := s.record(name, &r); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		found, err := s.load()
		if err != nil || len(found.runs) != runs {
			b.Fatalf("%d runs, %v", len(found.runs), err)
		}
	}
}
