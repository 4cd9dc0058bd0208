package apiserver

import (
	"crypto/tls"
	"errors"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
)

// servedSerial returns the serial number of the certificate that clients see.
func servedSerial(s *Server) (string, error) {
	conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// TestCertificatesAreRenewedWhileServing lets ten months pass.
func TestCertificatesAreRenewedWhileServing(t *testing.T) {
	// Ten months ago, so that what is renewed is valid now.
	const passed = 300 * 24 * time.Hour
	clock := clocktesting.NewFakeClock(time.Now().Add(-passed))
	s, _ := startServer(t, Config{DataDir: t.TempDir(), Clock: clock})
	before, err := servedSerial(s)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	clock.Step(passed)
	eventually(t, func() error {
		after, err := servedSerial(s)
		if err == nil && after == before {
			err = errors.New("the server still shows its old certificate")
		}
		return err
	})
	eventually(t, func() error {
		renewed, err := os.ReadFile(s.Kubeconfig())
		if err == nil && string(renewed) == string(kubeconfig) {
			err = errors.New("the kubeconfig still holds the old certificate")
		}
		return err
	})
	if _, err := adminClient(t, s).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("with the new kubeconfig: %v", err)
	}
}
