package clienttest

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// writers is how many goroutines use one client at once.
	writers = 64
	// rivals is how many of them write to one object. Each write puts off all
	// others, so that the work grows with the square of it.
	rivals = 16
)

func concurrencyCases() []Case {
	return []Case{
		{Name: "concurrent/patches", Run: concurrentPatches},
		{Name: "concurrent/updates", Run: concurrentUpdates},
		{Name: "concurrent/lives", Run: concurrentLives},
		{Name: "concurrent/creates", Run: concurrentCreates},
	}
}

// together runs fn in n goroutines at once and returns their errors.
func together(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errs
}

// concurrentPatches adds different labels to one pod: the server takes care of their conflicts.
func concurrentPatches(s *Session) {
	s.createPod(MakeLargePod("a"))
	for _, err := range together(rivals, func(i int) error {
		pt := []types.PatchType{types.MergePatchType, types.StrategicMergePatchType}[i%2]
		_, err := s.Pods().Patch(s.Ctx, "a", pt, fmt.Appendf(nil, `{"metadata":{"labels":{"l%d":"x"}}}`, i), metav1.PatchOptions{})
		return err
	}) {
		s.Must(err)
	}
	p, err := s.Pods().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(len(p.Labels) == rivals+2, "%d labels are left", len(p.Labels))
}

// concurrentUpdates counts in one object: whoever is late gets a conflict and tries again.
func concurrentUpdates(s *Session) {
	s.createConfigMap(MakeConfigMap("a"))
	for _, err := range together(rivals, func(i int) error {
		for {
			cm, err := s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
			if err != nil {
				return err
			}
			cm.Data[fmt.Sprint("k", i)] = "x"
			if _, err = s.ConfigMaps().Update(s.Ctx, cm, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				return err
			}
		}
	}) {
		s.Must(err)
	}
	cm, err := s.ConfigMaps().Get(s.Ctx, "a", metav1.GetOptions{})
	s.Must(err)
	s.That(len(cm.Data) == rivals+1, "%d keys are left", len(cm.Data))
}

// concurrentLives takes many pods through their lives while watchers look on, each changing what it sees. The server may end the watch of
// one that is too slow.
func concurrentLives(s *Session) {
	rv := s.listVersion()
	var watchers []watch.Interface
	var spoilers sync.WaitGroup
	for range 8 {
		w := s.watchPods(metav1.ListOptions{ResourceVersion: rv})
		watchers = append(watchers, w)
		spoilers.Go(func() {
			for ev := range w.ResultChan() {
				if p, ok := ev.Object.(*corev1.Pod); ok {
					spoil(p)
				}
			}
		})
	}
	for _, err := range together(writers, func(i int) error { return s.live(fmt.Sprint("p", i)) }) {
		s.Must(err)
	}
	for _, w := range watchers {
		w.Stop()
	}
	spoilers.Wait()
}

// live is one pod's life.
func (s *Session) live(name string) error {
	p, err := s.Pods().Create(s.Ctx, MakeLargePod(name), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := s.Pods().Bind(s.Ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, phase := range []corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded} {
		data := fmt.Appendf(nil, `{"metadata":{"uid":%q},"status":{"phase":%q}}`, p.UID, phase)
		if p, err = s.Pods().Patch(s.Ctx, name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status"); err != nil {
			return err
		}
		spoil(p)
	}
	var none int64
	return s.Pods().Delete(s.Ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &p.UID}})
}

// concurrentCreates has all writers make the same object: one wins.
func concurrentCreates(s *Session) {
	won := 0
	for _, err := range together(writers, func(int) error {
		_, err := s.Pods().Create(s.Ctx, MakePod("a"), metav1.CreateOptions{})
		return err
	}) {
		if err == nil {
			won++
			continue
		}
		s.That(apierrors.IsAlreadyExists(err), "got %v", err)
	}
	s.That(won == 1, "%d creates won", won)
}
