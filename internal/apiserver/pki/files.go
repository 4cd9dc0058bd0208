package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"errand.dev/errand/internal/atomicfile"
)

const (
	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "PRIVATE KEY"

	fileMode = 0o600
	dirMode  = 0o700
)

// newKey makes a P-256 key: 20 µs, where RSA 2048 takes 0.2 s.
func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

// pair is a certificate with its key, decoded and as PEM.
type pair struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	certPEM []byte
	keyPEM  []byte
}

func (p *pair) publicEqual() bool {
	pub, ok := p.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(p.key.Public())
}

func newPair(der []byte, key *ecdsa.PrivateKey) (*pair, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the new certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &pair{cert: cert, key: key, certPEM: encodeCert(der), keyPEM: keyPEM}, nil
}

// loadPair returns nil without an error if one of the files is missing: a crash
// between the two writes leaves the first alone.
func loadPair(dir, name string) (*pair, error) {
	certPEM, err := readIfExists(filepath.Join(dir, name+".crt"))
	if err != nil || certPEM == nil {
		return nil, err
	}
	keyPath := filepath.Join(dir, name+".key")
	keyPEM, err := readIfExists(keyPath)
	if err != nil || keyPEM == nil {
		return nil, err
	}
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != pemCertificate {
		return nil, fmt.Errorf("%s.crt in %s isn't a PEM certificate: restore it, or remove the directory to have new ones made (every kubeconfig and token made so far then ends)", name, dir)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse %s.crt in %s: %w", name, dir, err)
	}
	key, err := decodeKey(keyPath, keyPEM)
	if err != nil {
		return nil, err
	}
	return &pair{cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

func decodeKey(path string, data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemPrivateKey {
		return nil, fmt.Errorf("%s isn't a PEM private key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, want an ECDSA key", path, parsed)
	}
	return key, nil
}

// save writes the key first, so that a certificate never stands without it.
func (p *pair) save(dir, name string) error {
	if err := atomicfile.Write(filepath.Join(dir, name+".key"), p.keyPEM, fileMode); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name+".crt"), p.certPEM, fileMode)
}

func readIfExists(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
