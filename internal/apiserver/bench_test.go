package apiserver

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkStart measures New and Run until Ready, on an empty directory and on
// one that was used before. The stop isn't counted.
func BenchmarkStart(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		dir := benchDir(b)
		for b.Loop() {
			startOnce(b, filepath.Join(dir, "data"), dir)
			b.StopTimer()
			if err := os.RemoveAll(filepath.Join(dir, "data")); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("again", func(b *testing.B) {
		dir := benchDir(b)
		startOnce(b, filepath.Join(dir, "data"), dir)
		for b.Loop() {
			startOnce(b, filepath.Join(dir, "data"), dir)
		}
	})
}

func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp("/tmp", "e")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startOnce(b *testing.B, data, run string) {
	ctx, cancel := context.WithCancel(b.Context())
	s, err := New(ctx, Config{DataDir: data, RuntimeDir: run, Listen: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		b.Fatal(err)
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}
