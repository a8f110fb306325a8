package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	certLife  = 3650 * 24 * time.Hour
	certCheck = time.Minute // how often files are looked at
)

// SelfSigned makes a certificate for name ("": localhost) as people make them by hand, in PEM: the certificate and its private key, to be kept, because a
// server that shows another certificate after each start is remarkable. Read them with NewCertificate.
func SelfSigned(name string, now time.Time) (cert, private []byte, err error) {
	if name == "" {
		name = "localhost"
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	public, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	id := sha1.Sum(public)
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.UTC().Truncate(time.Second),
		NotAfter: now.UTC().Truncate(time.Second).Add(certLife), SubjectKeyId: id[:], AuthorityKeyId: id[:],
		BasicConstraintsValid: true, IsCA: true}
	if _, err := netip.ParseAddr(name); err != nil {
		t.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// NewCertificate returns a ServeConfig.Certificate that shows the certificate in PEM, with its chain and private key.
func NewCertificate(cert, private []byte) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	c, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }, nil
}

// LoadCertificate returns a ServeConfig.Certificate that shows the one in two PEM files, and reads them again within a minute when
// they were renewed. While the new ones are not readable it goes on with those it has.
func LoadCertificate(certFile, keyFile string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	f := &certFiles{cert: certFile, key: keyFile}
	if err := f.load(time.Now()); err != nil {
		return nil, err
	}
	return f.get, nil
}

// certFiles is a certificate in files.
type certFiles struct {
	cert, key string

	mu      sync.Mutex
	checked time.Time
	changed time.Time // of the certificate's file
	now     *tls.Certificate
}

func (f *certFiles) load(now time.Time) error {
	f.checked = now
	info, err := os.Stat(f.cert)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	if f.now != nil && info.ModTime().Equal(f.changed) {
		return nil
	}
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	f.now, f.changed = &c, info.ModTime()
	return nil
}

func (f *certFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) > certCheck {
		f.load(now) //nolint:errcheck // goes on with what it has, and tries again
	}
	return f.now, nil
}
