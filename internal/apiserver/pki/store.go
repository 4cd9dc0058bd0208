package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"errand.dev/errand/internal/atomicfile"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

const (
	caName      = "ca"
	servingName = "apiserver"
	adminName   = "admin"
	tokenKey    = "service-account"

	caLifetime   = 20 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	// A leaf is renewed once less than a third of its life is left.
	renewBefore = leafLifetime / 3

	// retryInterval separates attempts to renew when the disk refuses one.
	retryInterval = time.Hour
	// lookInterval bounds a wait for the day of renewal: timers stand still while
	// a machine sleeps, and don't know of a clock that is set.
	lookInterval = time.Hour

	// AdminUser and AdminGroup are the subject of the administrator's
	// certificate; the group is the one that Kubernetes' authorizers let pass.
	AdminUser  = "errand-admin"
	AdminGroup = "system:masters"
)

// Config says where the certificates stand and for whom they are.
type Config struct {
	// Dir holds the files; it is made if missing, its parent must exist.
	Dir string
	// Names and IPs are what clients call the API server by.
	Names []string
	IPs   []net.IP
	// Clock tells when certificates end; nil means the real one.
	Clock clock.Clock
	// Renewed, if set, is called after leaf certificates were renewed by Run,
	// and again every hour for as long as it returns an error.
	Renewed func(context.Context) error
}

// Store holds the certificates of one errand. Its methods may be called
// concurrently.
type Store struct {
	cfg   Config
	ca    *pair
	token *ecdsa.PrivateKey

	mu      sync.RWMutex
	serving *pair
	admin   *pair

	servingContent servingContent
	authority      *authority
}

// Open reads the certificates in cfg.Dir and makes those that are missing, are
// about to end or don't carry every name.
func Open(cfg Config) (*Store, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if err := os.MkdirAll(cfg.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("make the directory for certificates: %w", err)
	}
	s := &Store{cfg: cfg}
	s.servingContent.store = s
	var err error
	if s.ca, err = s.openCA(); err != nil {
		return nil, err
	}
	s.authority = newAuthority(s.ca)
	if s.token, err = openTokenKey(cfg.Dir); err != nil {
		return nil, err
	}
	if _, err := s.renew(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) openCA() (*pair, error) {
	ca, err := loadPair(s.cfg.Dir, caName)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		if s.cfg.Clock.Now().After(ca.cert.NotAfter) {
			return nil, fmt.Errorf("the certificate authority in %s ended on %s: remove the directory to have a new one made, then fetch the kubeconfig anew",
				s.cfg.Dir, ca.cert.NotAfter.Format(time.DateOnly))
		}
		return ca, nil
	}
	if ca, err = newCA(s.cfg.Clock.Now()); err != nil {
		return nil, err
	}
	return ca, ca.save(s.cfg.Dir, caName)
}

func openTokenKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, tokenKey+".key")
	data, err := readIfExists(path)
	if err != nil {
		return nil, err
	}
	if data != nil {
		return decodeKey(path, data)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if data, err = encodeKey(key); err != nil {
		return nil, err
	}
	return key, atomicfile.Write(path, data, fileMode)
}

// renew makes the leaves that need it and reports whether there were any.
func (s *Store) renew() (renewed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Each counts as renewed only once it is saved: one that isn't must be tried
	// again, and those that serve go on until then.
	serving, servingRenewed, err := s.leaf(s.serving, s.servingTemplate())
	if err != nil {
		return false, err
	}
	admin, adminRenewed, err := s.leaf(s.admin, adminTemplate())
	if err != nil {
		return false, err
	}
	s.serving, s.admin = serving, admin
	return servingRenewed || adminRenewed, nil
}

// leaf returns the certificate that want describes: the given one, the one on
// disk, or a new one.
func (s *Store) leaf(have *pair, want leafTemplate) (_ *pair, renewed bool, err error) {
	now := s.cfg.Clock.Now()
	if have == nil {
		if have, err = loadPair(s.cfg.Dir, want.file); err != nil {
			return nil, false, err
		}
	}
	if have != nil && s.usable(have, want, now) {
		return have, false, nil
	}
	made, err := newLeaf(s.ca, want, now)
	if err != nil {
		return nil, false, err
	}
	if err := made.save(s.cfg.Dir, want.file); err != nil {
		return nil, false, err
	}
	return made, true, nil
}

func (s *Store) usable(p *pair, want leafTemplate, now time.Time) bool {
	if now.Before(p.cert.NotBefore) || now.After(s.renewAt(p)) || !p.publicEqual() {
		return false
	}
	if p.cert.CheckSignatureFrom(s.ca.cert) != nil {
		return false
	}
	return covers(p.cert, want)
}

func covers(cert *x509.Certificate, want leafTemplate) bool {
	for _, name := range want.names {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range want.ips {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// Run renews the leaves before they end, until ctx does. It returns nil.
func (s *Store) Run(ctx context.Context) error {
	wait := s.untilRenewal()
	untold := false // of a renewal
	for {
		timer := s.cfg.Clock.NewTimer(min(wait, lookInterval))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C():
		}
		renewed, err := s.renew()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Certificates couldn't be renewed", "dir", s.cfg.Dir, "retryIn", retryInterval)
			wait = retryInterval
			continue
		}
		if renewed {
			s.servingContent.notify()
		}
		untold = s.cfg.Renewed != nil && (renewed || untold)
		if untold {
			if err := s.cfg.Renewed(ctx); err != nil {
				klog.FromContext(ctx).Error(err, "Certificates were renewed, but not everywhere", "retryIn", retryInterval)
				wait = retryInterval
				continue
			}
			untold = false
		}
		wait = s.untilRenewal()
	}
}

// renewAt is when a leaf should be replaced. One that ends with the authority
// can't be replaced by a better one.
func (s *Store) renewAt(p *pair) time.Time {
	if !p.cert.NotAfter.Before(s.ca.cert.NotAfter) {
		return p.cert.NotAfter
	}
	return p.cert.NotAfter.Add(-renewBefore)
}

func (s *Store) untilRenewal() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := s.renewAt(s.serving)
	if admin := s.renewAt(s.admin); admin.Before(at) {
		at = admin
	}
	// A moment late, so that renew agrees that it is time.
	return max(at.Sub(s.cfg.Clock.Now()), 0) + time.Second
}

// CA returns the authority's certificate as PEM.
func (s *Store) CA() []byte { return s.ca.certPEM }

// Admin returns the administrator's current certificate and key as PEM.
func (s *Store) Admin() (cert, key []byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.admin.certPEM, s.admin.keyPEM
}

// TokenKey returns the key that signs service account tokens.
func (s *Store) TokenKey() *ecdsa.PrivateKey { return s.token }
