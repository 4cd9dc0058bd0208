package pki

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

const day = 24 * time.Hour

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func servingCert(t *testing.T, s *Store) *x509.Certificate {
	t.Helper()
	cert, _ := s.Serving().CurrentCertKeyContent()
	return parse(t, cert)
}

func TestCertificatesAreForWhomTheyShouldBe(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), Names: []string{"localhost", "kubernetes"}, IPs: []net.IP{net.IPv6loopback}})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	for _, name := range []string{"localhost", "kubernetes", "[::1]"} {
		_, err := servingCert(t, s).Verify(x509.VerifyOptions{
			Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			t.Errorf("serving certificate: %v", err)
		}
	}
	certPEM, _ := s.Admin()
	admin := parse(t, certPEM)
	options, ok := s.Authority().VerifyOptions()
	if _, err := admin.Verify(options); err != nil || !ok {
		t.Errorf("admin certificate: %v", err)
	}
	if admin.Subject.CommonName != AdminUser || strings.Join(admin.Subject.Organization, ",") != AdminGroup {
		t.Errorf("admin's subject is %s", admin.Subject)
	}
	if _, err := servingCert(t, s).Verify(options); err == nil {
		t.Error("the serving certificate passes as a client's")
	}
}

func TestReopenKeepsAll(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Names: []string{"localhost"}}
	first := open(t, cfg)
	second := open(t, cfg)
	if !servingCert(t, first).Equal(servingCert(t, second)) || string(first.CA()) != string(second.CA()) ||
		!first.TokenKey().Equal(second.TokenKey()) {
		t.Error("a certificate or key changed without need")
	}
}

func TestANewNameMakesANewCertificate(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Names: []string{"localhost"}}
	first := open(t, cfg)
	cfg.IPs = []net.IP{net.IPv4(10, 0, 0, 1)}
	second := open(t, cfg)
	if servingCert(t, first).Equal(servingCert(t, second)) {
		t.Error("the certificate lacks the new address")
	}
	if err := servingCert(t, second).VerifyHostname("10.0.0.1"); err != nil {
		t.Error(err)
	}
	if string(first.CA()) != string(second.CA()) {
		t.Error("the authority changed")
	}
}

func TestLeavesAreRenewedInTime(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	cfg := Config{Dir: t.TempDir(), Names: []string{"localhost"}, Clock: clock}
	first := open(t, cfg)
	clock.Step(240 * day) // two thirds are over after 243 days
	if !servingCert(t, first).Equal(servingCert(t, open(t, cfg))) {
		t.Error("renewed too early")
	}
	clock.Step(10 * day)
	if servingCert(t, first).Equal(servingCert(t, open(t, cfg))) {
		t.Error("not renewed")
	}
}

func TestRunRenewsAndTells(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	renewed := make(chan struct{}, 10)
	s := open(t, Config{
		Dir: t.TempDir(), Names: []string{"localhost"}, Clock: clock,
		Renewed: func(context.Context) error { renewed <- struct{}{}; return nil },
	})
	enqueued := make(listener, 10)
	s.Serving().AddListener(enqueued)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	before := servingCert(t, s)
	for range 2 {
		for !clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
		clock.Step(250 * day)
		<-renewed
		<-enqueued
		after := servingCert(t, s)
		if after.Equal(before) || !after.NotAfter.After(clock.Now().Add(300*day)) {
			t.Errorf("the certificate ends on %s", after.NotAfter)
		}
		before = after
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRenewalIsRetried: neither a disk that refuses a certificate nor one that
// refuses what is made of it makes a renewal forgotten. The machine slept
// meanwhile: no timer saw the day come.
func TestRenewalIsRetried(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	told := make(chan error)
	s := open(t, Config{
		Dir: t.TempDir(), Clock: clock,
		Renewed: func(context.Context) error { return <-told },
	})
	before := servingCert(t, s)
	clock.SetTime(clock.Now().Add(250 * day))

	// A directory in a file's place stands for the full disk.
	admin := filepath.Join(s.cfg.Dir, adminName+".crt")
	if err := os.Remove(admin); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(admin, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if renewed, err := s.renew(); err == nil || renewed {
			t.Errorf("renewed %v, %v, want an error", renewed, err)
		}
	}
	if !servingCert(t, s).Equal(before) {
		t.Error("serves a certificate although not all could be renewed")
	}
	if err := os.RemoveAll(admin); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for i, failure := range []error{errors.New("disk full"), nil} {
		for !clock.HasWaiters() {
			time.Sleep(time.Millisecond)
		}
		clock.Step(lookInterval)
		select {
		case told <- failure:
		case <-time.After(10 * time.Second):
			t.Fatalf("attempt %d: nobody was told", i)
		}
	}
	if servingCert(t, s).Equal(before) {
		t.Error("not renewed")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type listener chan struct{}

func (l listener) Enqueue() { l <- struct{}{} }

// TestNearTheAuthoritysEnd: a leaf that ends with the authority can't get
// better, and trying every second won't help.
func TestNearTheAuthoritysEnd(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	cfg := Config{Dir: t.TempDir(), Clock: clock}
	open(t, cfg)
	clock.Step(caLifetime - 30*day)
	s := open(t, cfg)
	if wait := s.untilRenewal(); wait < 29*day {
		t.Errorf("renews in %v", wait)
	}
	clock.Step(31 * day)
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("after the authority's end: got %v", err)
	}
}

func TestHalfWrittenPairIsMadeAnew(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	open(t, cfg)
	if err := os.Remove(filepath.Join(cfg.Dir, "admin.crt")); err != nil {
		t.Fatal(err)
	}
	open(t, cfg)
	// A certificate of another key, as a crash between two writes leaves it.
	other := Config{Dir: t.TempDir()}
	key, err := os.ReadFile(filepath.Join(open(t, other).cfg.Dir, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, "apiserver.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, cfg)
	if !s.serving.publicEqual() {
		t.Error("certificate and key don't belong together")
	}
}

func TestBrokenFilesAreNamed(t *testing.T) {
	for _, name := range []string{"ca.crt", "ca.key", "service-account.key", "apiserver.key"} {
		cfg := Config{Dir: t.TempDir()}
		open(t, cfg)
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(cfg)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), cfg.Dir) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
